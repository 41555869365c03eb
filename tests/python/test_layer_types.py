"""Layers that share KV: the notation of every arrangement that LCKV's papers name, what the layers of each see in the cluster, and how much
memory they take there. Three defects of published implementations have a test each that their answers fail."""

import numpy
import pytest

import kvgrid
from kvgrid import layer_types

EVEN = [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20]
MIX = "0_1s_1s_3s_3s_3s_0_7s_7s_9s_9s_9s_12_13s_13s_15s_15s_15s_12_19s_19s_19s"
NAMED = {  # of 22 layers
    "standard": ("_".join(map(str, range(22))), list(range(22))),
    "LCKV w=2": ("0_" + "20_" * 20 + "21", [0, 20, 21]),
    "LCKV w=10": ("0_1_2_3_4_" + "16_" * 12 + "17_18_19_20_21", [0, 1, 2, 3, 4, 16, 17, 18, 19, 20, 21]),
    "sandwich-middle": ("0_" + "10_" * 20 + "21", [0, 10, 21]),
    "CLA-2": ("_".join(f"{layer}_{layer}" for layer in EVEN), EVEN),
    "YOCO": ("_".join([f"{layer}s" for layer in range(11)] + ["11"] * 11), list(range(12))),
    "MixAttention": (MIX, [0, 1, 3, 7, 9, 12, 13, 15, 19]),
}


@pytest.mark.parametrize("name", NAMED)
def test_each_arrangement_is_written_as_its_paper_does_and_read_by_the_spec(name):
    notation, kv_layers = NAMED[name]
    assert layer_types.ARRANGEMENTS[name](22) == notation
    assert layer_types.kv_layers(notation) == kv_layers

    spec = kvgrid.ModelSpec(layers=22, query_heads=32, kv_heads=4, head_dim=64, dtype="bf16", kv_layer_of=notation)
    assert spec.kv_layer_of == [target for target, _ in layer_types.parse(notation)]
    assert [layer for layer in range(22) if spec.owns_kv(layer)] == kv_layers
    assert [window > 0 for window in spec.window] == [slides for _, slides in layer_types.parse(notation)]


def test_arrangements_of_other_sizes():
    assert layer_types.lasagna(7, 3, "top") == "1_1_3_3_6_6_6"
    assert layer_types.pizza(5, 2) == "0_1_1_1_1" and layer_types.pizza(5, 2, "top") == "0_4_4_4_4"
    assert layer_types.sandwich(6, 4, "bottom") == "0_1_2_2_2_5"
    assert set(layer_types.ARRANGEMENTS) == set(NAMED)
    for layers in range(4, 40):
        for arrange in (f for name, f in layer_types.ARRANGEMENTS.items() if name != "LCKV w=10" or layers > 11):
            kvgrid.ModelSpec(layers=layers, query_heads=2, kv_heads=1, head_dim=32, dtype="f32", kv_layer_of=arrange(layers))


def test_what_is_not_an_arrangement_is_refused():
    for wrong in ("", "0_2", "0_1x", "0_s", "0__1", "-1_1", "0_1_"):
        with pytest.raises(kvgrid.InvalidArgument):
            layer_types.parse(wrong)
    with pytest.raises(kvgrid.InvalidArgument, match="item 1 is '2': must be one of the 2 layers"):
        layer_types.parse("0_2")
    with pytest.raises(kvgrid.InvalidArgument):
        layer_types.lckv(2, 2)
    with pytest.raises(kvgrid.InvalidArgument, match="'bottom', 'middle' or 'top'"):
        layer_types.pizza(4, 2, "side")


def test_plans_have_the_passes_of_the_paper():
    def calls(notation):
        return sum(part.passes for part in layer_types.plan(notation, 7 + 2))

    assert (calls("1_2s_0"), calls("0_1s_2"), calls(layer_types.lckv(22))) == (9, 1, 11)
    assert layer_types.plan(layer_types.lckv(22), 9) == [(0, 1, 1, ()), (1, 21, 9, (20,)), (21, 22, 1, ())]
    assert layer_types.plan(layer_types.sandwich(22, 3, "middle"), 9) == [(0, 1, 1, ()), (1, 11, 9, (10,)), (11, 22, 1, ())]
    assert layer_types.plan("2_2_2_5_5_5", 4) == [(0, 3, 4, (2,)), (3, 6, 4, (5,))]
    assert layer_types.plan("1_2_2_3", 1) == [(0, 3, 1, (1, 2)), (3, 4, 1, ())]
    for notation, work in ((layer_types.lckv(22), 8.27), (layer_types.lckv(22, 10), 5.36)):
        layers = sum((part.end - part.first) * part.passes for part in layer_types.plan(notation, 9))
        assert layers / 22 == pytest.approx(work, abs=0.005)


@pytest.mark.parametrize("warmup, share", [(2, 3 / 22), (10, 11 / 22)])
def test_memory_is_that_of_the_layers_that_have_kv(cluster, client, warmup, share):
    """TinyLlama's shape, as the allocators of the workers count it."""
    used = {}
    for notation in (layer_types.standard(22), layer_types.lckv(22, warmup)):
        spec = kvgrid.ModelSpec(name=f"tinyllama-{warmup}-{len(notation)}", layers=22, query_heads=32, kv_heads=4, head_dim=64, dtype="bf16",
                                kv_layer_of=notation)
        model = client.register(spec, pool_bytes_per_worker=8 << 20)
        nothing = numpy.zeros((600, 4, 64), "uint16")
        with model.open() as sequence:
            with client.step([(sequence, 600)], kind="write") as step:
                for layer in filter(spec.owns_kv, range(22)):
                    step.layer(layer, k=nothing, v=nothing)
            records = [of for worker in client.occupancy().workers for of in worker.models if of.model == model.id]
        used[notation] = sum(of.used_pages * of.page_bytes for of in records)
        assert sum(of.stored_tokens for of in records) == 600 * 4 * len(layer_types.kv_layers(notation))

    standard, condensed = used.values()
    assert condensed / standard == pytest.approx(share, rel=1e-12)


# ---- defects of published implementations


def tensors(random, tokens):
    return [random.standard_normal((tokens, heads, 32)).astype("float32") for heads in (4, 2, 2)]


def attend(q, k, v):
    """One token's q [4, 32] over k and v [n, 2, 32], in fp64."""
    out = numpy.zeros((4, 32))
    for head in range(4):
        logits = k[:, head // 2].astype("float64") @ q[head] / numpy.sqrt(32)
        weights = numpy.exp(logits - logits.max())
        out[head] = weights @ v[:, head // 2] / weights.sum()
    return out


def test_a_later_token_sees_all_earlier_ones_and_not_the_first_alone(client, register, random):
    """The mask without a diagonal, built as a triangle from the top left, shows a single new token the first key alone."""
    model = register(kv_layer_of="1_1")
    keys, values = numpy.zeros((0, 2, 32)), numpy.zeros((0, 2, 32))
    with model.open() as sequence:
        for token in range(70):
            q, k, v = tensors(random, 1)
            with client.step([(sequence, 1)]) as step:
                o = step.layer(0, q)
                step.layer(1, q, k, v)
            if token > 1:
                numpy.testing.assert_allclose(o[0], attend(q[0], keys, values), atol=1e-5)
                assert abs(o[0] - values[0].repeat(2, 0)).max() > 1e-2, "only the first token was seen"
            keys, values = numpy.concatenate([keys, k]), numpy.concatenate([values, v])


@pytest.mark.parametrize("tokens", [1, 2, 7, 70])
def test_the_first_token_sees_nothing(client, register, random, tokens):
    """Logits that are all the same huge negative number would give it the average of all tokens instead."""
    model = register(kv_layer_of="1_1")
    q, k, v = tensors(random, tokens)
    with model.open() as sequence, client.step([(sequence, tokens)], kind="iterate") as step:
        step.layer(1, q, k, v)
        o = step.layer(0, q)
    with model.open() as sequence, client.step([(sequence, 1)]) as step:
        single = step.layer(0, q[:1])
        step.layer(1, q[:1], k[:1], v[:1])

    assert not o[0].any() and not single.any()  # exactly zero
    for token in range(1, tokens):
        numpy.testing.assert_allclose(o[token], attend(q[token], k[:token], v[:token]), atol=1e-5)


def test_the_first_token_sees_nothing_in_pages_that_held_other_values(client, register, random):
    model = register(kv_layer_of="1_1", non_finite="allow")
    for value in (numpy.nan, numpy.inf):
        spoiled = numpy.full((64, 2, 32), value, "float32")
        held = [model.open() for _ in range(40)]
        for sequence in held:
            with client.step([(sequence, 64)], kind="write") as step:
                step.layer(1, k=spoiled, v=spoiled)
        for sequence in held:
            sequence.close()
        q, k, v = tensors(random, 1)
        with model.open() as sequence, client.step([(sequence, 1)]) as step:
            assert not step.layer(0, q).any()
            step.layer(1, q, k, v)


def test_a_sliding_layers_kv_stays_while_another_layer_sees_all_of_it(client, register, random):
    """Trimmed to its own window, it would lack the tokens that a layer without a window reads."""
    model = register(layers=3, kv_layer_of=[0, 0, 2], window=[64, 0, 64])
    with model.open() as sequence:
        q, k, v = tensors(random, 400)
        with client.step([(sequence, 400)]) as step:
            step.layer(0, q, k, v)
            step.layer(1, q)
            step.layer(2, q, k, v)
        q, new_k, new_v = tensors(random, 1)
        with client.step([(sequence, 1)]) as step:
            step.layer(0, q, new_k, new_v)
            o = step.layer(1, q)
            step.layer(2, q, new_k, new_v)
        keys, values = numpy.concatenate([k, new_k]), numpy.concatenate([v, new_v])
        numpy.testing.assert_allclose(o[0], attend(q[0], keys, values), atol=1e-5)
        assert abs(o[0] - attend(q[0], keys[-64:], values[-64:])).max() > 1e-2, "only its window was kept"
        assert numpy.array_equal(sequence.read_kv(0, 0, 400)[0], k)
        with pytest.raises(kvgrid.WrongState):
            sequence.read_kv(2, 0, 400)  # nobody sees that any more
