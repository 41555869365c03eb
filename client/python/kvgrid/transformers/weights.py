"""Which model it is, beyond its geometry."""

from __future__ import annotations

import hashlib
import json
from itertools import chain

import torch

_SAMPLE = 1024  # elements of each tensor


def fingerprint(model: torch.nn.Module) -> bytes:
    """32 bytes that tell models apart whose K and V differ: of the configuration, and of some elements of each parameter and buffer.

    Other weights differ nearly everywhere, so a sample finds them, in a time that does not grow with the tensors.
    """
    config = model.config.get_text_config().to_dict()
    said = {key: value for key, value in config.items() if not key.startswith("_") and key != "transformers_version"}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode())
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        flat = tensor.detach().reshape(-1)
        some = flat[:: max(1, flat.numel() // _SAMPLE)].contiguous().cpu()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(some.view(torch.uint8).numpy().tobytes())
    return digest.digest()
