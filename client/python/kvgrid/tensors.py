"""Tensors of callers, as the extension reads and writes them. Neither numpy nor torch is imported here: a caller that has a tensor of
theirs has imported them already.

Tensors in GPU memory are refused by the extension (Unsupported).
"""

from __future__ import annotations

import sys
from typing import Any


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


def array_of(tensor: Any, dtype: str) -> Any:
    """A tensor of the extension's as an array of numpy, where that is installed and has the dtype."""
    if dtype == "bf16":
        return tensor
    try:
        import numpy
    except ImportError:
        return tensor
    return numpy.asarray(tensor)
