"""Which columns of a batch are tokens.

transformers pads the rows of a batch to one width: a row of `token_ids` has columns that are tokens and columns that are not, as the 2-D
attention mask says. Only tokens go to the grid, where each row is a sequence of its own without gaps.
"""

from __future__ import annotations

import torch

from kvgrid.errors import InvalidArgument, Unsupported


class Columns:
    """The columns that the rows of one cache have seen, on the CPU. Without padding it costs nothing, else rows * count bytes."""

    def __init__(self) -> None:
        self.count = 0
        self._mask: torch.Tensor | None = None  # [rows, count] bool; None: all are tokens

    def new_ones(self, mask: torch.Tensor | None, rows: int, new: int) -> torch.Tensor | None:
        """[rows, new] bool, which of the next columns are tokens; None: all.

        mask     [rows, count + new] bool, or None where all columns are tokens
        Raises   InvalidArgument: a mask of another shape. Unsupported: one that says something else of columns that are in the cache
        """
        if mask is not None and tuple(mask.shape) != (rows, self.count + new):
            raise InvalidArgument(
                f"attention_mask has shape {list(mask.shape)}: must be {[rows, self.count + new]}, for it covers the {self.count} columns "
                "of the cache and the new ones"
            )
        mask = None if mask is None else mask.cpu()
        if self.count and not self._agrees(mask):
            raise Unsupported("attention_mask differs from that of earlier calls in columns that are in the cache already")
        if mask is None:
            return None
        fresh = mask[:, self.count :]
        return None if bool(fresh.all()) else fresh

    def _agrees(self, mask: torch.Tensor | None) -> bool:
        if mask is None:
            return self._mask is None
        past = mask[:, : self.count]
        return bool(past.all()) if self._mask is None else torch.equal(past, self._mask)

    def append(self, fresh: torch.Tensor | None, rows: int, new: int) -> None:
        if self._mask is not None or fresh is not None:
            past = torch.ones(rows, self.count, dtype=torch.bool) if self._mask is None else self._mask
            fresh = torch.ones(rows, new, dtype=torch.bool) if fresh is None else fresh
            self._mask = torch.cat([past, fresh], dim=1)
        self.count += new

    def tokens_within(self, count: int, row: int) -> int:
        """Tokens of a row in the first `count` columns."""
        return count if self._mask is None else int(self._mask[row, :count].sum())

    def cut(self, count: int) -> None:
        self.count = count
        if self._mask is not None:
            self._set(self._mask[:, :count])

    def select(self, rows: list[int]) -> None:
        if self._mask is not None:
            self._set(self._mask[rows])

    def _set(self, mask: torch.Tensor) -> None:
        self._mask = None if bool(mask.all()) else mask

    def copy(self) -> Columns:
        other = Columns()
        other.count, other._mask = self.count, self._mask
        return other
