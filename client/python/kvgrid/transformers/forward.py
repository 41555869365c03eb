"""One forward of an attached model: one step of the grid.

    before the model      Forward.begin            by a hook of the module
    each layer            offer                    cache.update: the new k and v
                          attend                   the attention function: with q. The first one begins the step
    after the model       end                      by a hook, which also runs when the forward raises: commit, or abort

A forward belongs to its thread, where the attention function and the mask function find it: transformers hands them no cache.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import torch

from kvgrid.errors import Unsupported, WrongState
from kvgrid.transformers.batch_step import BatchStep

if TYPE_CHECKING:
    from kvgrid.transformers.attachment import Attachment
    from kvgrid.transformers.cache import GridCache

_thread = threading.local()


class Forward:
    """See above."""

    def __init__(self, attachment: Attachment, token_ids: torch.Tensor | None) -> None:
        self.attachment = attachment
        self._token_ids = token_ids
        self._step: BatchStep | None = None
        self._offered: tuple[GridCache, int, torch.Tensor, torch.Tensor] | None = None

    @staticmethod
    def begin(attachment: Attachment, token_ids: torch.Tensor | None) -> None:
        broken_off = Forward.take()  # by Ctrl-C: torch calls no hook then
        if broken_off is not None:
            broken_off.end(succeeded=False)
        _thread.forward = Forward(attachment, token_ids)

    @staticmethod
    def current(who: str) -> Forward:
        """That of this thread. Raises WrongState where no attached model runs; `who` asks."""
        forward: Forward | None = getattr(_thread, "forward", None)
        if forward is None:
            raise WrongState(f"{who} is in use in a model that is not attached: kvgrid.transformers.attach(model, client) comes first")
        return forward

    @staticmethod
    def take() -> Forward | None:
        """That of this thread, which has none from now on."""
        forward: Forward | None = getattr(_thread, "forward", None)
        _thread.forward = None
        return forward

    def offer(self, cache: GridCache, layer: int, k: torch.Tensor, v: torch.Tensor) -> None:
        """k, v   [rows, kv_heads, columns, head_dim]: the new ones"""
        if cache.attachment is not self.attachment:
            raise WrongState("this cache belongs to another attached model: take one of attached.cache()")
        if self._offered is not None:
            raise WrongState(f"k and v of layer {self._offered[1]} came to the cache of kvgrid, but no q to its attention")
        self._offered = (cache, layer, k, v)

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """[rows, columns, query_heads, head_dim], contiguous; zeros in columns that are padding.

        q      [rows, query_heads, columns, head_dim]
        k, v   as they were offered, the same objects
        mask   [rows, columns of the cache and new ones] bool; None: all are tokens
        """
        offered, self._offered = self._offered, None
        if offered is None or offered[1] != layer:
            raise WrongState(
                "the attention of kvgrid is in use without its cache: pass one of attached.cache() as past_key_values, and leave use_cache on"
            )
        cache, _, offered_k, offered_v = offered
        if k is not offered_k or v is not offered_v:
            raise Unsupported("the model changes k or v between its cache and its attention: what the grid has would be something else")
        if self._step is None:
            self._step = BatchStep(cache, rows=q.shape[0], new=q.shape[2], mask=mask, token_ids=self._token_ids)
        elif self._step.cache is not cache:
            raise Unsupported("one forward uses two caches")
        return self._step.layer(layer, q, k, v)

    def end(self, succeeded: bool) -> None:
        """Commits, or aborts; nothing, where no layer was called."""
        step, self._step = self._step, None
        if step is None:
            if succeeded and self._offered is not None:
                raise WrongState("the cache of kvgrid is in use without its attention")
            return
        if succeeded:
            step.commit()
        else:
            step.give_up()
