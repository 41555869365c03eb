"""The attention function and the mask function that transformers calls by the name "kvgrid".

Both check before they trust: what a model asks for has to be what its spec says, and what neither knows is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, causal_mask_function

from kvgrid.errors import Unsupported
from kvgrid.model_spec import ModelSpec
from kvgrid.transformers.forward import Forward

NAME = "kvgrid"

# Arguments that say nothing about which keys a query sees, or what becomes of them: RoPE is in k and q already.
_HARMLESS = frozenset(
    "position_ids cache_position position_embeddings use_cache return_dict output_hidden_states logits_to_keep num_items_in_batch "
    "cache past_key_values is_causal".split()
)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **named: Any,
) -> tuple[torch.Tensor, None]:
    """As transformers calls it for each layer: (o [rows, columns, query_heads, head_dim], no weights).

    query            [rows, query_heads, columns, head_dim]
    key, value       [rows, kv_heads, columns, head_dim]: the new ones, as GridCache.update gave them back
    attention_mask   what `mask` below returned
    Raises           Unsupported, where something asked for is not what the model's spec says
    """
    forward = Forward.current("the attention of kvgrid")
    layer = module.layer_idx
    _check_spec(module, forward.attachment.spec, layer, scaling, named)
    if dropout:
        raise Unsupported(f"dropout is {dropout}: must be 0; model.eval() switches it off")
    if query.requires_grad:
        raise Unsupported("gradients do not flow through the grid: run the model under torch.no_grad() or torch.inference_mode()")
    if attention_mask is not None and attention_mask.ndim != 2:
        raise Unsupported(f"attention_mask has {attention_mask.ndim} dimensions: must be 2-D, which columns are tokens, or None")
    return forward.attend(layer, query, key, value, attention_mask), None


def _check_spec(module: torch.nn.Module, spec: ModelSpec, layer: int, scaling: float | None, named: dict[str, Any]) -> None:
    asked_scale = module.head_dim**-0.5 if scaling is None else scaling
    if not math.isclose(asked_scale, spec.scale, rel_tol=1e-6):
        raise Unsupported(f"scaling is {asked_scale} in layer {layer}: the spec has {spec.scale}")
    window, soft_cap = named.pop("sliding_window", None), named.pop("softcap", None) or 0
    if window is not None and window != spec.window[layer]:  # not all models say it here: `mask` sees it in any case
        raise Unsupported(f"sliding_window is {window} in layer {layer}: the spec has {spec.window[layer]}")
    if soft_cap != spec.logit_soft_cap:
        raise Unsupported(f"softcap is {soft_cap} in layer {layer}: the spec has {spec.logit_soft_cap}")
    if getattr(module, "is_causal", True) is False or named.get("is_causal") is False:
        raise Unsupported(f"is_causal is false in layer {layer}: must be true")
    for name, asked in named.items():
        if name not in _HARMLESS and asked is not None and asked is not False:
            raise Unsupported(f"{name} is given in layer {layer}: kvgrid does not know what it does to attention")


def mask(
    batch_size: int,
    kv_length: int,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] = causal_mask_function,
    attention_mask: torch.Tensor | None = None,
    **named: Any,
) -> torch.Tensor | None:
    """As transformers calls it before the layers: [batch_size, kv_length] bool, which columns are tokens; None: all of them.

    Raises Unsupported, where `mask_function` is not causal, all along or through a window of the spec.
    """
    spec = Forward.current("the mask of kvgrid").attachment.spec
    if named.get("use_vmap"):
        raise Unsupported("the model changes the causal mask by functions of its own (or_mask_function, and_mask_function)")
    if mask_function is not causal_mask_function:
        if "q_length" in named:
            first, count = int(named.get("q_offset", kv_length - named["q_length"])), int(named["q_length"])
        else:
            first, count = int(named["cache_position"][0]), len(named["cache_position"])
        _check_visible(mask_function, batch_size, first, count, {window for window in spec.window if window})
    if attention_mask is None or bool(attention_mask.all()):
        return None
    return attention_mask


def _check_visible(function: Callable[..., Any], rows: int, first: int, count: int, windows: set[int]) -> None:
    """Looks at all keys of the last query, and for every query at the edges of what it may see. Cost: rows * (first + 3 * count)."""
    row = torch.arange(rows).view(-1, 1)

    def sees(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(function(row, 0, query, key)).expand(rows, key.shape[-1])

    query = torch.arange(first, first + count).view(1, -1)
    last = query[:, -1:]
    visible = sees(last, torch.arange(first + count).view(1, -1))
    window = int(visible[0].sum())
    expected = torch.arange(first + count) > int(last) - window
    right = torch.equal(visible, expected.expand_as(visible)) and bool(sees(query, query).all())
    right = right and not sees(query[:, :-1], query[:, 1:]).any() if count > 1 else right
    if window == first + count:  # nothing has left the window yet, if there is one
        slides = True
    else:
        slides = window in windows
        far = query[query >= window].view(1, -1)
        right = right and not sees(far, far - window).any() and bool(sees(far, far - window + 1).all())
    if not (right and slides):
        raise Unsupported(f"the model's mask is not causal, nor causal through a window of its spec {sorted(windows)}")


def register() -> None:
    """Makes both known to transformers. Again: nothing new."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, mask)
