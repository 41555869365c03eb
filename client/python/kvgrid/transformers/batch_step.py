"""A step of the grid for one batch: rows and columns on this side, sequences and tokens on the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kvgrid.errors import WrongState
from kvgrid.step import Step

if TYPE_CHECKING:
    from kvgrid.transformers.cache import GridCache


class BatchStep:
    """Adds `new` columns to all rows of a cache.

    mask        [rows, columns of the cache + new] bool; None: all are tokens
    token_ids   [rows, new], for prefixes that are looked for later; None: not known
    Raises      what Client.step raises, e.g. NoRoom: nothing has changed then
    """

    def __init__(
        self, cache: GridCache, *, rows: int, new: int, mask: torch.Tensor | None, token_ids: torch.Tensor | None
    ) -> None:
        self.cache = cache
        self._rows = cache._rows_for(rows)
        self._new = new
        self._fresh = cache._columns.new_ones(mask, rows, new)
        self._token_ids = token_ids
        self._counts = [new] * rows if self._fresh is None else self._fresh.sum(dim=1).tolist()
        # Places of the tokens among rows * new columns, in the order of the step's parts.
        self._places = None if self._fresh is None else self._fresh.reshape(-1).nonzero().squeeze(1)
        self._step = self._begin()

    def _begin(self) -> Step | None:
        grown = [(row, count) for row, count in zip(self._rows, self._counts, strict=True) if count]
        if not grown:
            return None
        step = self.cache.attachment.client.step([(row.sequence, count) for row, count in grown])
        lengths = [row.length for row, _ in grown]
        if step.lengths != lengths:
            found = step.lengths
            step.abort()
            raise WrongState(f"the cache's rows have {found} tokens in the grid, and {lengths} are expected: somebody else changed them; reset()")
        return step

    def layer(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """q [rows, query_heads, new, head_dim], k and v likewise: o [rows, new, query_heads, head_dim]."""
        rows, heads, new, head_dim = q.shape
        if self._step is None:
            return q.new_zeros(rows, new, heads, head_dim)
        o = self._step.layer(layer, *(self._tokens_of(tensor) for tensor in (q, k, v)))
        if self._places is not None:
            padded = o.new_zeros(rows * new, heads, head_dim)
            padded[self._places.to(o.device)] = o
            o = padded
        return o.view(rows, new, heads, head_dim)

    def _tokens_of(self, tensor: torch.Tensor) -> torch.Tensor:
        """[rows, heads, new, head_dim] to [tokens, heads, head_dim]; a copy where there are several rows and columns."""
        flat = tensor.transpose(1, 2).flatten(0, 1)
        return flat if self._places is None else flat[self._places.to(flat.device)]

    def commit(self) -> None:
        if self._step is not None:
            self._step.commit()
        for index, row in enumerate(self._rows):
            row.grow(self._counts[index], self._ids_of(index))
        self.cache._columns.append(self._fresh, len(self._rows), self._new)

    def _ids_of(self, index: int) -> list[int] | None:
        if self._token_ids is None:
            return None
        ids = self._token_ids[index]
        return (ids if self._fresh is None else ids[self._fresh[index]]).tolist()

    def give_up(self) -> None:
        """Aborts, and says nothing over the exception that is under way."""
        if self._step is not None:
            self._step._give_up()
