"""Tensors on a GPU: a call with them gives the bits that the same call gives through the host's memory, wherever they lie, on whatever stream, from
whatever thread; and the memory that is shared for them is freed. Of one GPU, which the worker and this process share; skipped without one,
and where the package's workers were built without CUDA."""

import asyncio
import concurrent.futures

import numpy
import pytest
import torch
from gpus import needs_gpu
from growing_context import GrowingContext, grow
from tiny_models import draw_ids, generate, logits_of, ragged, tiny_model

import kvgrid
import kvgrid.aio
import kvgrid.transformers

pytestmark = needs_gpu

DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}


@pytest.fixture(scope="module", params=["one on a GPU", "two on a GPU", "two on two GPUs", "two on CPUs"])
def any_cluster(request):
    """Workers that reach this process's GPU memory, and such that do not."""
    if request.param == "two on two GPUs":
        if torch.cuda.device_count() < 2:
            pytest.skip("one GPU here")
        wish = {"processes": True, "device": "auto"}
    else:
        wish = {"device": "cpu" if "CPU" in request.param else "gpu"}
    with kvgrid.local(workers=1 if request.param.startswith("one") else 2, memory="256MiB", **wish) as started:
        yield started


@pytest.fixture(scope="module")
def gpu_cluster():
    with kvgrid.local(workers=1, memory="512MiB", device="gpu") as started:
        yield started


@pytest.fixture
def client(gpu_cluster):
    with gpu_cluster.connect() as connected:
        yield connected


def spec_of(dtype="bf16", **fields):
    name = "-".join(["of", dtype, *(f"{key}{value}" for key, value in fields.items())])
    geometry = {"layers": 2, "query_heads": 8, "kv_heads": 2, "head_dim": 64, "dtype": dtype, "deterministic": True}
    return kvgrid.ModelSpec(name=name, **{**geometry, **fields})


def registered(client, *arguments, **fields):
    return client.register(spec_of(*arguments, **fields), pool_bytes_per_worker=64 << 20)


def drawn(spec, tokens, seed=0):
    """(q, k, v) on the GPU."""
    generator = torch.Generator("cuda").manual_seed(seed)
    return [
        torch.randn(tokens, heads, spec.head_dim, device="cuda", generator=generator).to(DTYPES[spec.dtype])
        for heads in (spec.query_heads, spec.kv_heads, spec.kv_heads)
    ]


def through_host(client, sequence, all_layers):
    """What the same step gives with the same tensors on the CPU."""
    with client.step([(sequence, len(all_layers[0][0]))]) as step:
        return [step.layer(layer, *(tensor.cpu() for tensor in tensors)) for layer, tensors in enumerate(all_layers)]


def on_gpu(client, sequence, all_layers):
    with client.step([(sequence, len(all_layers[0][0]))]) as step:
        return [step.layer(layer, *tensors) for layer, tensors in enumerate(all_layers)]


def assert_same(found, expected):
    assert all(tensor.is_cuda for tensor in found)
    assert all(torch.equal(a.cpu(), b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_outputs_are_those_of_the_formula(dtype, any_cluster):
    with any_cluster.connect() as client:
        model = registered(client, dtype)
        spec = model.spec
        random = numpy.random.default_rng(5)
        contexts = [GrowingContext(model.open(), spec, random) for _ in range(2)]

        def convert(array):
            tensor = torch.from_numpy(array.view("int16") if dtype == "bf16" else array)
            return (tensor.view(torch.bfloat16) if dtype == "bf16" else tensor).cuda()

        def back(tensor):
            assert tensor.is_cuda
            return (tensor.view(torch.int16).cpu().numpy().view("uint16") if dtype == "bf16" else tensor.cpu().numpy())

        for counts in ([70, 3], [1, 1], [1, 90]):
            grow(client, list(zip(contexts, counts, strict=True)), convert, back)


def test_small_and_large_calls_in_turn(client):
    model = registered(client)
    with model.open() as host, model.open() as gpu:
        for seed, tokens in enumerate((1, 9000, 1, 20000, 300)):  # of 20,000: 51 MB
            layers = [drawn(model.spec, tokens, 2 * seed + layer) for layer in range(2)]
            assert_same(on_gpu(client, gpu, layers), through_host(client, host, layers))
        assert torch.equal(*(torch.from_dlpack(of.read_kv(1, 8000, 1000)[0]) for of in (host, gpu)))


def test_tensors_in_shared_memory_stay_where_they_are(client):
    model = registered(client)
    q, k, v, o = map(torch.from_dlpack, model.gpu_tensors(8))
    assert q.shape == (8, 8, 64) and k.shape == (8, 2, 64) and o.dtype is torch.bfloat16 and v.is_cuda
    with model.open() as host, model.open() as gpu:
        for seed, tokens in enumerate((8, 1, 5)):
            layers = [drawn(model.spec, tokens, 2 * seed + layer) for layer in range(2)]
            expected = through_host(client, host, layers)
            with client.step([(gpu, tokens)]) as step:
                for layer, tensors in enumerate(layers):
                    for place, tensor in zip((q, k, v), tensors, strict=True):
                        place[:tokens] = tensor
                    o.fill_(float("nan"))
                    assert step.layer(layer, q[:tokens], k[:tokens], v[:tokens], out=o[:tokens]) is not None
                    assert torch.equal(o[:tokens].cpu(), expected[layer]) and o[tokens:].isnan().all()


def test_what_the_stream_has_queued_comes_first_and_o_is_there_for_what_follows(client):
    model = registered(client)
    slow = torch.randn(4096, 4096, device="cuda")
    layers = [drawn(model.spec, 500, layer) for layer in range(2)]
    given = torch.cuda.Stream()
    for stream, current in ((None, given), (given, torch.cuda.default_stream()), (given.cuda_stream, torch.cuda.default_stream())):
        with model.open() as host, model.open() as gpu:
            expected = through_host(client, host, layers)
            torch.cuda.synchronize()
            with client.step([(gpu, 500)]) as step:
                for layer, (q, k, v) in enumerate(layers):
                    late = torch.zeros_like(q)
                    torch.cuda.synchronize()
                    with torch.cuda.stream(given):
                        for _ in range(20):
                            slow = slow @ slow / 64
                        late.copy_(q)
                    with torch.cuda.stream(current):
                        o = step.layer(layer, late, k, v, stream=stream)
                    with torch.cuda.stream(given):
                        twice = 2 * o.float()
                    given.synchronize()
                    assert torch.equal(twice.cpu(), 2 * expected[layer].float())


def test_tensors_that_are_not_contiguous_and_gradients(client):
    model = registered(client)
    layers = [drawn(model.spec, 10, layer) for layer in range(2)]
    heads_first = [[tensor.transpose(0, 1).contiguous().transpose(0, 1).requires_grad_() for tensor in tensors] for tensors in layers]
    assert not heads_first[0][0].is_contiguous()
    with model.open() as host, model.open() as gpu:
        assert_same(on_gpu(client, gpu, heads_first), through_host(client, host, layers))


def test_threads_with_streams_of_their_own(client):
    model = registered(client)
    layers = [[drawn(model.spec, tokens, 10 * tokens + layer) for layer in range(2)] for tokens in (1, 40, 700, 2)]
    with model.open() as host:
        expected = []
        for of in layers:
            expected.append(through_host(client, host, of))
            host.truncate(0)

    def again_and_again(index):
        with torch.cuda.stream(torch.cuda.Stream()):
            own = [[tensor.clone() for tensor in tensors] for tensors in layers[index]]
            for _ in range(20):
                with model.open() as gpu:
                    assert_same(on_gpu(client, gpu, own), expected[index])

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(again_and_again, range(4)))


def test_asynchronous_calls_take_the_callers_stream(gpu_cluster, client):
    model = registered(client)
    layers = [drawn(model.spec, 33, layer) for layer in range(2)]
    with model.open() as host:
        expected = through_host(client, host, layers)

    async def decode():
        async with await kvgrid.aio.connect(gpu_cluster.endpoint) as other:
            same = await other.register(model.spec)
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                late = [[tensor.clone() for tensor in tensors] for tensors in layers]
                async with await same.open() as sequence, await other.step([(sequence, 33)]) as step:
                    found = [await step.layer(layer, *tensors) for layer, tensors in enumerate(late)]
            stream.synchronize()
            return found

    assert_same(asyncio.run(decode()), expected)


def test_steps_of_the_other_kinds(client):
    model = registered(client, layers=3, kv_layer_of="0_2_2")
    tensors = [drawn(model.spec, 50, layer) for layer in range(3)]

    def passes(sequence, place):
        with client.step([(sequence, 50)], kind="write") as step:
            for layer in (0, 2):
                assert step.layer(layer, None, *(tensor.to(place) for tensor in tensors[layer][1:])) is None
        found = []
        with client.step([(sequence, 50)], kind="iterate") as step:
            for layer in (0, 2):
                step.layer(layer, k=tensors[layer][1].to(place), v=tensors[layer][2].to(place))
            for layer in (1, 2, 0):
                found.append(step.layer(layer, tensors[layer][0].to(place)))
            found.append(step.layer(2, *(tensor.to(place) for tensor in tensors[1])))
        return found

    with model.open() as host, model.open() as gpu:
        expected, found = passes(host, "cpu"), passes(gpu, "cuda")
        assert_same(found, expected)
        assert all(torch.equal(torch.from_dlpack(host.read_kv(layer, 0, 100)[0]), torch.from_dlpack(gpu.read_kv(layer, 0, 100)[0])) for layer in (0, 2))


def test_what_is_refused_changes_nothing(client):
    model = registered(client)
    layers = [drawn(model.spec, 5, layer) for layer in range(2)]
    q, k, v = layers[0]
    with model.open() as host, model.open() as gpu:
        with client.step([(gpu, 5)]) as step:
            for wrong, message in (
                ((q, k.cpu(), v), "k is not in a GPU's memory"),
                ((q.cpu(), k, v), "k is not in the CPU's memory"),
                ((q, k[:4], v), "k has shape"),
                ((q.float(), k, v), "q is of f32"),
                ((q.double(), k, v), "q is of torch.float64"),
                ((q, None, None), "k of layer 0 has 0 bytes"),
                ((None, k, v), "q of layer 0 has 0 bytes"),
            ):
                with pytest.raises((kvgrid.InvalidArgument, kvgrid.Unsupported), match=message):
                    step.layer(0, *wrong)
            with pytest.raises(kvgrid.InvalidArgument, match="out is not contiguous"):
                step.layer(0, q, k, v, out=torch.empty(8, 5, 64, device="cuda", dtype=torch.bfloat16).transpose(0, 1))
            with pytest.raises(kvgrid.InvalidArgument, match="stream is a str"):
                step.layer(0, q, k, v, stream="mine")
            with pytest.raises(kvgrid.WrongState):
                step.layer(1, q, k, v)
            found = [step.layer(layer, *tensors) for layer, tensors in enumerate(layers)]
        assert_same(found, through_host(client, host, layers))
    with pytest.raises(kvgrid.Unsupported, match="no GPU 99"):
        model.gpu_tensors(1, gpu=99)


def test_a_call_cannot_be_captured(client):
    model = registered(client)
    q, k, v = drawn(model.spec, 1)
    graph = torch.cuda.CUDAGraph()
    with model.open() as sequence:
        step = client.step([(sequence, 1)])
        with pytest.raises((kvgrid.Unsupported, RuntimeError)), torch.cuda.graph(graph):
            step.layer(0, q, k, v)
        step.abort()
    torch.cuda.synchronize()
    with model.open() as sequence:
        assert on_gpu(client, sequence, [drawn(model.spec, 2, layer) for layer in range(2)])


def test_the_memory_is_freed_with_the_client_and_the_last_tensor(gpu_cluster):
    drawn(spec_of(), 20000)  # torch's own
    torch.cuda.synchronize()
    free_before = torch.cuda.mem_get_info()[0]
    client = gpu_cluster.connect()
    model = registered(client)
    tensors = model.gpu_tensors(8192)  # 21 MB of 32 MiB
    with model.open() as sequence:
        on_gpu(client, sequence, [drawn(model.spec, 9000, layer) for layer in range(2)])  # 23 MB
    held = torch.from_dlpack(tensors.q)
    assert free_before - torch.cuda.mem_get_info()[0] >= 64 << 20
    client.close()
    held.fill_(1)  # it is still there
    torch.cuda.synchronize()
    with pytest.raises(kvgrid.WrongState):
        model.gpu_tensors(1)
    del tensors, held
    assert free_before - torch.cuda.mem_get_info()[0] <= 16 << 20  # torch's q, k, v of another size


def test_models_on_the_gpu_say_what_they_say_with_their_own_cache(any_cluster):
    model = tiny_model("qwen3").cuda()
    ids, mask = (tensor.cuda() for tensor in ragged([30, 7, 19]))
    own = generate(model, ids, attention_mask=mask)
    with any_cluster.connect() as client, kvgrid.transformers.attach(model, client, name="qwen3", pool_bytes_per_worker=8 << 20) as attached:
        with attached.cache() as cache:
            assert torch.equal(generate(model, ids, cache, attention_mask=mask), own)
        with attached.cache() as cache:
            attached.prefill(cache, ids[:1], chunk_tokens=7)
            assert torch.equal(generate(model, ids[:1], cache), generate(model, ids[:1]) if not mask[0].all() else own[:1])


def test_endless_text_on_the_gpu(gpu_cluster):
    model = tiny_model("llama").cuda()
    ids = draw_ids(1, 100).cuda()
    with gpu_cluster.connect() as client, kvgrid.transformers.attach(model, client, name="llama-stream", pool_bytes_per_worker=8 << 20) as attached:
        own = None
        for window in (200, 30):
            with kvgrid.transformers.TextStream(attached, window=window, sinks=2) as stream:
                logits = torch.cat([stream.feed(part) for part in ids[0].split(9)])
                own = logits if own is None else own
                assert logits.is_cuda and logits.shape == own.shape
                assert torch.allclose(logits[:27], own[:27], atol=1e-3) and torch.equal(logits, own) is (window == 200)  # it is full at the 30th
    whole = logits_of(tiny_model("llama").cuda(), ids)[0]
    assert torch.allclose(own, whole, atol=1e-3)
