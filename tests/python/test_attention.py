"""Outputs are exact attention over the whole context, whatever way it has grown: against the formula in fp64 (growing_context.py)."""

import ml_dtypes
import numpy
import pytest
import torch
from growing_context import GrowingContext, as_numbers, grow


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_chunked_prefill_and_decodes_of_several_sequences(client, register, random, dtype):
    model = register(dtype=dtype, layers=3)
    a, b, c = (GrowingContext(model.open(), model.spec, random) for _ in range(3))
    grow(client, [(a, 70), (b, 1)])
    grow(client, [(b, 64), (a, 33), (c, 5)])
    for _ in range(3):
        grow(client, [(c, 1), (a, 1), (b, 1)])

    assert [context.sequence.length for context in (a, b, c)] == [a.length, b.length, c.length] == [106, 68, 8]


def test_forks_and_truncated_sequences_go_their_own_ways(client, register, random):
    model = register()
    trunk = GrowingContext(model.open(), model.spec, random)
    grow(client, [(trunk, 100)])
    branch = trunk.fork()
    grow(client, [(branch, 20)])
    trunk.truncate(90)
    grow(client, [(trunk, 7), (branch, 1)])

    assert (trunk.sequence.length, branch.sequence.length) == (97, 121)


def test_windows_and_sinks_of_the_model(client, register, random):
    model = register(window=[40, 0], sinks=[3, 0])
    context = GrowingContext(model.open(), model.spec, random)
    grow(client, [(context, 150)])
    grow(client, [(context, 1)])


def test_a_window_of_the_sequence(client, register, random):
    model = register()
    context = GrowingContext(model.open(window=50, sinks=2), model.spec, random)
    context.window, context.sinks = 50, 2
    grow(client, [(context, 130)])
    context.sequence.set_window(20, 1)
    context.window, context.sinks = 20, 1
    grow(client, [(context, 1)])


def test_layers_that_share_kv_are_called_without_k_and_v(client, register, random):
    model = register(kv_layer_of=[0, 0])
    q, k, v = (random.standard_normal((10, heads, 32)).astype("float32") for heads in (4, 2, 2))
    with model.open() as sequence, client.step([(sequence, 10)]) as step:
        own = step.layer(0, q, k, v)
        shared = step.layer(1, q)

    assert numpy.array_equal(own, shared)
    assert [model.spec.owns_kv(layer) for layer in range(2)] == [True, False]


def test_torch_in_torch_out(client, register, random):
    model = register(dtype="bf16")
    context = GrowingContext(model.open(), model.spec, random)

    def to_torch(bits):
        return torch.from_numpy(bits).view(torch.bfloat16)

    def from_torch(tensor):
        assert type(tensor) is torch.Tensor and tensor.dtype is torch.bfloat16
        return tensor.view(torch.uint16).numpy()

    grow(client, [(context, 30)], to_torch, from_torch)


def test_ml_dtypes_in_ml_dtypes_out(client, register, random):
    model = register(dtype="bf16")
    context = GrowingContext(model.open(), model.spec, random)

    def back(array):
        assert array.dtype == ml_dtypes.bfloat16
        return array.view("uint16")

    grow(client, [(context, 30)], lambda bits: bits.view(ml_dtypes.bfloat16), back)


def test_a_written_step_is_read_back_and_attended(client, register, random):
    model = register()
    context = GrowingContext(model.open(), model.spec, random)
    with client.step([(context.sequence, 80)], kind="write") as step:
        for layer in range(model.spec.layers):
            k, v = (random.standard_normal((80, 2, 32)).astype("float32") for _ in range(2))
            assert step.layer(layer, k=k, v=v) is None
            context.k[layer], context.v[layer] = (as_numbers(tensor, "f32") for tensor in (k, v))
    k, v = context.sequence.read_kv(1, 10, 65)

    assert numpy.array_equal(k, context.k[1][10:75]) and numpy.array_equal(v, context.v[1][10:75])
    grow(client, [(context, 1)])
