"""Rewritten keys and values are what later tokens see, in that sequence alone."""

import kvgrid
import numpy
import pytest
from growing_context import GrowingContext, grow


def rewrite(context, layer, first, count, random):
    k, v = (random.standard_normal((count, 2, 32)).astype("float32") for _ in range(2))
    context.sequence.rewrite_kv(layer, first, k, v)
    context.k[layer] = context.k[layer].copy()
    context.v[layer] = context.v[layer].copy()
    context.k[layer][first : first + count] = k
    context.v[layer][first : first + count] = v


def test_later_tokens_see_what_was_rewritten(client, register, random):
    model = register()
    context = GrowingContext(model.open(), model.spec, random)
    grow(client, [(context, 150)])
    rewrite(context, 1, 60, 70, random)
    rewrite(context, 0, 149, 1, random)
    k, v = context.sequence.read_kv(1, 0, 150)

    assert numpy.array_equal(k, context.k[1]) and numpy.array_equal(v, context.v[1])
    grow(client, [(context, 2)])


def test_a_fork_keeps_what_it_had(client, register, random):
    model = register()
    trunk = GrowingContext(model.open(), model.spec, random)
    grow(client, [(trunk, 100)])
    branch = trunk.fork()
    rewrite(branch, 0, 10, 80, random)
    grow(client, [(trunk, 1), (branch, 1)])


def test_what_cannot_be_rewritten_is_refused(client, register, random):
    model = register()
    context = GrowingContext(model.open(), model.spec, random)
    grow(client, [(context, 10)])
    one = random.standard_normal((1, 2, 32)).astype("float32")
    with pytest.raises(kvgrid.InvalidArgument, match="sequence .* has 10"):
        context.sequence.rewrite_kv(0, 10, one, one)
    with pytest.raises(kvgrid.InvalidArgument, match="owns no KV"):
        context.sequence.rewrite_kv(9, 0, one, one)
    with pytest.raises(kvgrid.InvalidArgument, match="NaN"):
        context.sequence.rewrite_kv(0, 0, one * numpy.nan, one)
    step = client.step([(context.sequence, 1)])
    with pytest.raises(kvgrid.Busy):
        context.sequence.rewrite_kv(0, 0, one, one)
    step.abort()
    context.sequence.set_window(3)
    grow_to = random.standard_normal((200, 2, 32)).astype("float32")
    with client.step([(context.sequence, 200)], kind="write") as step:
        for layer in range(model.spec.layers):
            step.layer(layer, k=grow_to, v=grow_to)
    with pytest.raises(kvgrid.WrongState, match="left the window"):
        context.sequence.rewrite_kv(0, 0, one, one)
