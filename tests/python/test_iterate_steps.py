"""Steps of kind "iterate": a layer answers by what the step has written last, what was not written cannot be read, and what is committed is
the last of it. Against the formula in fp64 (growing_context.py), over several sequences."""

import asyncio

import numpy
import pytest
from growing_context import attend

import kvgrid
import kvgrid.aio

PARTS = (70, 1, 5)
ROWS = [slice(0, 70), slice(70, 71), slice(71, 76)]


@pytest.fixture
def model(register):
    """Layer 1 reads the KV of layer 2."""
    return register(layers=3, kv_layer_of="0_2_2")


def draw(random, heads):
    return random.standard_normal((sum(PARTS), heads, 32)).astype("float32")


def begin(client, model):
    sequences = [model.open() for _ in PARTS]
    return sequences, client.step(zip(sequences, PARTS), kind="iterate")


def check(model, q, k, v, o, strictly_earlier=False):
    """Each sequence by itself; a token that sees strictly earlier ones is the token before, with another's q."""
    for rows in ROWS:
        count = rows.stop - rows.start
        part = [tensor[rows].astype("float64") for tensor in (q, k, v)]
        if strictly_earlier:
            assert not o[rows][0].any()
            part[0] = part[0][1:]
        if len(part[0]) == 0:
            continue
        expected, tolerance = attend(*part, 0, 0, 0, model.spec)
        numpy.testing.assert_allclose(o[rows][count - len(part[0]) :], expected, rtol=0, atol=tolerance)


def test_each_pass_sees_what_the_one_before_has_left(client, model, random):
    sequences, step = begin(client, model)
    with step:
        k0, v0 = draw(random, 2), draw(random, 2)
        assert step.layer(0, k=k0, v=v0) is None
        k, v = numpy.zeros_like(k0), numpy.zeros_like(v0)
        step.layer(2, k=k, v=v)
        for _ in range(3):
            q = draw(random, 4)
            check(model, q, k, v, step.layer(1, q), strictly_earlier=True)
            k, v = draw(random, 2), draw(random, 2)
            check(model, q, k, v, step.layer(2, q, k, v))
        check(model, q, k0, v0, step.layer(0, q))
        assert [sequence.length for sequence in sequences] == [0, 0, 0]

    assert [sequence.length for sequence in sequences] == list(PARTS)
    for layer, keys, values in ((0, k0, v0), (2, k, v)):
        for sequence, rows in zip(sequences, ROWS):
            stored = sequence.read_kv(layer, 0, sequence.length)
            assert all(numpy.array_equal(*pair) for pair in zip(stored, (keys[rows], values[rows])))


def test_what_is_not_written_is_not_read_and_not_committed(client, model, random):
    (sequence, *_), step = begin(client, model)
    q, k, v = draw(random, 4), draw(random, 2), draw(random, 2)
    with pytest.raises(kvgrid.WrongState, match="layer 1 of step .* reads the KV of layer 2, which the step has not written"):
        step.layer(1, q)
    with pytest.raises(kvgrid.WrongState, match="reads the KV of layer 0"):
        step.layer(0, q)
    step.layer(0, q, k, v)
    with pytest.raises(kvgrid.WrongState, match="layer 2 owns KV, and has none for the new tokens yet"):
        step.commit()
    for layer, wrong in ((3, {"q": q}), (-1, {"q": q}), (1, {}), (2, {}), (2, {"k": k}), (1, {"k": k, "v": v}), (1, {"q": q, "k": k, "v": v})):
        with pytest.raises(kvgrid.InvalidArgument):
            step.layer(layer, **wrong)
    step.abort()
    assert sequence.length == 0 and not sequence.inspect().step_open


def test_not_finite_values_are_refused_in_any_call(client, model, random):
    _, step = begin(client, model)
    k, v = draw(random, 2), draw(random, 2)
    v[3, 1, 7] = numpy.nan
    with step:
        with pytest.raises(kvgrid.InvalidArgument, match="v of token 3"):
            step.layer(2, k=k, v=v)
        v[3, 1, 7] = 0
        step.layer(2, k=k, v=v)
        step.layer(0, k=k, v=v)


def test_other_kinds_say_what_they_are_for(client, model):
    sequence = model.open()
    with pytest.raises(kvgrid.Unsupported, match="one token per sequence and step, or more in a step of kind iterate"):
        client.step([(sequence, 2)])
    with pytest.raises(kvgrid.InvalidArgument, match="kind is 'repeat': must be 'attend', 'write' or 'iterate'"):
        client.step([(sequence, 2)], kind="repeat")


def test_passes_from_asyncio(cluster, model, random):
    async def passes():
        async with await kvgrid.aio.connect(cluster.endpoint) as client:
            mine = next(each for each in await client.models() if each.id == model.id)
            async with await mine.open() as sequence:
                q, k, v = (random.standard_normal((3, heads, 32)).astype("float32") for heads in (4, 2, 2))
                async with await client.step([(sequence, 3)], kind="iterate") as step:
                    for layer in (0, 2, 2):
                        await step.layer(layer, k=k, v=v)
                    await step.layer(1, q)
                return await sequence.length()

    assert asyncio.run(passes()) == 3
