"""What stands in the list of layers that transformers' Cache has: it asks the whole cache."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from transformers.cache_utils import CacheLayerMixin

from kvgrid.errors import Unsupported

if TYPE_CHECKING:
    from kvgrid.transformers.cache import GridCache


class GridLayer(CacheLayerMixin):
    """One layer. `is_sliding` is false in every one: lengths are logical ones, and the grid knows the windows."""

    is_compileable = False
    is_sliding = False
    supports_early_init = False

    def __init__(self, cache: GridCache) -> None:
        super().__init__()
        self.is_croppable = not any(cache.attachment.spec.window)
        self._cache = weakref.ref(cache)  # a cycle would keep pages until the next garbage collection

    def _whole(self) -> GridCache:
        cache = self._cache()
        assert cache is not None
        return cache

    def get_seq_length(self, *args: Any) -> int:
        return self._whole().get_seq_length()

    def get_mask_sizes(self, query: int | torch.Tensor) -> tuple[int, int]:
        return self._whole().get_mask_sizes(query)

    def get_max_length(self) -> int:
        return -1

    def get_max_cache_shape(self) -> int:
        return -1

    def lazy_initialization(self, *args: Any, **kwargs: Any) -> None:
        """Nothing is held here."""

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise Unsupported("a single layer of kvgrid's cache cannot be changed: call the cache's own method")

    update = offload = prefetch = reset = reorder_cache = crop = batch_repeat_interleave = batch_select_indices = _refuse
