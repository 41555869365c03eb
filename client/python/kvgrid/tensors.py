"""Tensors of callers, as the extension reads and writes them. Neither numpy nor torch is imported here: a caller that has a tensor of
theirs has imported them already.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from kvgrid.errors import InvalidArgument

_CUDA = 2  # DLPack's number for it
_TORCH_DTYPES = {"torch.bfloat16": "bf16", "torch.float16": "f16", "torch.float32": "f32"}


def _is_numpy(tensor: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(tensor, numpy.ndarray)


def _is_torch(tensor: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(tensor, torch.Tensor)


def readable(tensor: Any) -> Any:
    """The same memory as something that the extension reads: gradients are not followed, and bf16 is taken by its bits where numpy stands
    between (torch exports DLPack in two microseconds, an array of numpy in one)."""
    if _is_torch(tensor):
        tensor = tensor.detach() if tensor.requires_grad else tensor
        if not tensor.is_cpu or "numpy" not in sys.modules:
            return tensor
        torch = sys.modules["torch"]
        return (tensor.view(torch.uint16) if tensor.dtype is torch.bfloat16 else tensor).numpy()
    if _is_numpy(tensor) and tensor.dtype.kind == "V" and tensor.dtype.name == "bfloat16":  # the name alone takes a microsecond
        return tensor.view("uint16")
    return tensor


def empty_like(tensor: Any) -> Any:
    """A new contiguous tensor of the same kind, shape and dtype; None where the extension has to make one of its own."""
    if _is_torch(tensor):
        torch = sys.modules["torch"]
        return torch.empty_like(tensor, requires_grad=False, memory_format=torch.contiguous_format)
    if _is_numpy(tensor):
        return sys.modules["numpy"].empty(tensor.shape, tensor.dtype)
    return None


def is_on_gpu(tensor: Any) -> bool:
    """Whether it is in the memory of a GPU of CUDA's."""
    if _is_torch(tensor):
        return bool(tensor.is_cuda)
    if tensor is None or _is_numpy(tensor):
        return False
    device = getattr(tensor, "__dlpack_device__", None)
    return device is not None and device()[0] == _CUDA


def stream_of(tensor: Any, stream: Any) -> int:
    """A CUstream as a number: that of `stream`, or torch's current one where it is None and the tensor torch's, or the legacy default stream."""
    if stream is None:
        if not _is_torch(tensor):
            return 0
        return _current_stream(tensor.device)
    if isinstance(stream, int):
        return stream
    if hasattr(stream, "__cuda_stream__"):
        return int(stream.__cuda_stream__()[1])
    for name in ("cuda_stream", "ptr"):  # torch's, cupy's
        if hasattr(stream, name):
            return int(getattr(stream, name))
    raise InvalidArgument(f"stream is a {type(stream).__name__}: must be a stream of torch or cupy, one with __cuda_stream__, or its number")


def on_stream(tensor: Any, stream: Any) -> contextlib.AbstractContextManager[Any]:
    """Where torch's own work on its tensors is queued on the stream that was given, and its memory belongs to it."""
    if stream is None or not _is_torch(tensor):
        return contextlib.nullcontext()
    cuda = sys.modules["torch"].cuda
    handle = stream_of(tensor, stream)
    same = handle == _current_stream(tensor.device)
    return contextlib.nullcontext() if same else cuda.stream(cuda.ExternalStream(handle, device=tensor.device))


def _current_stream(device: Any) -> int:
    """Torch's, as a number."""
    torch = sys.modules["torch"]
    raw = getattr(torch._C, "_cuda_getCurrentRawStream", None)  # a twentieth of the public way's six microseconds, which makes an object
    return int(raw(device.index) if raw else torch.cuda.current_stream(device).cuda_stream)


def contiguous(tensor: Any) -> Any:
    """A tensor of torch with its elements one after the other, copied on torch's current stream where they were not; others as they are."""
    return tensor.contiguous() if _is_torch(tensor) else tensor


def on_gpu(tensor: Any) -> Any:
    """What the extension wants to know of a contiguous tensor of torch on a GPU; others as they are. It holds nothing: the tensor has to stay."""
    if not _is_torch(tensor) or not tensor.is_cuda or not tensor.is_contiguous():
        return tensor
    dtype = _TORCH_DTYPES.get(str(tensor.dtype), str(tensor.dtype))
    return tensor.data_ptr(), tensor.shape, dtype, tensor.device.index


def array_of(tensor: Any, dtype: str) -> Any:
    """A tensor of the extension's as an array of numpy, where that is installed and has the dtype."""
    if dtype == "bf16":
        return tensor
    try:
        import numpy
    except ImportError:
        return tensor
    return numpy.asarray(tensor)
