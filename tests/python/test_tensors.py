"""Which tensors go in and out: kinds, layouts, and what is refused. A model whose second layer is never reached is enough: each call is
the first layer of a step that is then aborted."""

import array

import numpy
import pytest
import torch

import kvgrid

TOKENS = 6


@pytest.fixture
def layer(client, register, random):
    """layer(**changed): the step's first layer with good tensors, apart from those changed."""
    model = register()
    good = {name: random.standard_normal((TOKENS, heads, 32)).astype("float32") for name, heads in (("q", 4), ("k", 2), ("v", 2))}

    def called(**changed):
        with model.open() as sequence:
            step = client.step([(sequence, TOKENS)])
            try:
                return step.layer(0, **{**good, **changed})
            finally:
                step.abort()

    called.good = good
    called.expected = called()
    return called


def test_anything_with_the_buffer_protocol(layer):
    q = layer.good["q"]
    cast = memoryview(array.array("f", q.ravel().tolist())).cast("B").cast("f", q.shape)
    o = layer(q=cast)

    assert numpy.array_equal(numpy.asarray(o), layer.expected)
    assert torch.equal(torch.from_dlpack(o), torch.from_numpy(layer.expected))


def test_tensors_that_are_not_contiguous_are_copied(layer):
    def strided(values):  # as transformers has them: heads before tokens
        return numpy.ascontiguousarray(values.transpose(1, 0, 2)).transpose(1, 0, 2)

    def spread(values):
        wide = numpy.zeros((*values.shape[:2], 64), "float32")
        wide[:, :, ::2] = values
        return wide[:, :, ::2]

    def reversed_twice(values):
        return numpy.ascontiguousarray(values[::-1])[::-1]

    for change in (strided, spread, reversed_twice):
        changed = {name: change(values) for name, values in layer.good.items()}
        assert not changed["q"].flags.c_contiguous
        assert numpy.array_equal(layer(**changed), layer.expected)


def test_tensors_that_cannot_be_written_are_only_read(layer):
    q = layer.good["q"].copy()
    q.flags.writeable = False

    assert numpy.array_equal(layer(q=q), layer.expected)


def test_gradients_are_not_followed(layer):
    tensors = {name: torch.from_numpy(values).requires_grad_() for name, values in layer.good.items()}
    o = layer(**tensors)

    assert not o.requires_grad and numpy.array_equal(o.numpy(), layer.expected)


def test_out_is_written_and_returned(layer):
    for out in (numpy.full_like(layer.expected, numpy.nan), torch.full(layer.expected.shape, torch.nan)):
        assert layer(out=out) is out
        assert numpy.array_equal(numpy.asarray(out), layer.expected)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"q": numpy.zeros((5, 4, 32), "f4")}, r"q has shape \[5, 4, 32\]; \[6, 4, 32\] is expected"),
        ({"k": numpy.zeros((6, 4, 32), "f4")}, r"k has shape \[6, 4, 32\]; \[6, 2, 32\] is expected"),
        ({"v": numpy.zeros((6, 64), "f4")}, r"v has shape \[6, 64\]; \[6, 2, 32\] is expected"),
        ({"q": numpy.zeros((6, 4, 32), "f8")}, "q is of float64; the model's dtype is f32"),
        ({"k": torch.zeros((6, 2, 32), dtype=torch.bfloat16)}, "k is of uint16 or bfloat16; the model's dtype is f32"),
        ({"q": [1.0]}, "q is a list"),
        ({"k": None}, "k of layer 0 has 0 bytes"),
        ({"out": numpy.zeros((6, 4, 32), "f2")}, "out is of float16"),
        ({"out": numpy.zeros((6, 4, 64), "f4")[:, :, ::2]}, "out is not contiguous"),
        ({"out": memoryview(bytes(3072)).cast("f", (6, 4, 32))}, "out is a memoryview; a tensor that can be written"),
        ({"k": numpy.full((6, 2, 32), numpy.nan, "f4")}, "k"),
    ],
)
def test_what_is_refused_says_what_belongs_there(layer, changed, message):
    with pytest.raises(kvgrid.InvalidArgument, match=message) as raised:
        layer(**changed)
    assert raised.value.code == "invalid_argument"


class OnAnotherDevice:
    """Exports DLPack as a tensor in a GPU's memory does: device type 2."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, **_):
        import ctypes

        capsule = self.tensor.__dlpack__()
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        managed = pointer(capsule, b"dltensor")
        ctypes.c_int32.from_address(managed + 8).value = 2  # DLTensor: data, then the device's type
        return capsule


def test_tensors_on_cpu_and_gpu_do_not_mix(layer):
    with pytest.raises(kvgrid.Unsupported, match="k is not in the CPU's memory"):
        layer(k=OnAnotherDevice(torch.from_numpy(layer.good["k"].copy())))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA driver here")
def test_without_a_driver_a_tensor_on_a_gpu_is_refused_by_name(layer):
    tensors = {name: OnAnotherDevice(torch.from_numpy(values.copy())) for name, values in layer.good.items()}
    with pytest.raises(kvgrid.Unsupported, match="there is no CUDA driver here"):
        layer(**tensors, out=OnAnotherDevice(torch.from_numpy(layer.expected.copy())))
