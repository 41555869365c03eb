"""The cache that transformers passes through a model: a handle of sequences in the grid."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from transformers.cache_utils import Cache

import kvgrid
from kvgrid.errors import InvalidArgument, WrongState
from kvgrid.transformers.columns import Columns
from kvgrid.transformers.forward import Forward
from kvgrid.transformers.layers import GridLayer
from kvgrid.transformers.row import Row
from kvgrid.transformers.versions import CROP_TAKES_LENGTH

if TYPE_CHECKING:
    from kvgrid.transformers.attachment import Attachment


class GridCache(Cache):
    """A cache of transformers that holds no keys and values: each row of the batch is a sequence in the grid. Made by Attachment.cache.

    It can be passed to several calls, which go on where the last one ended. Its sequences are closed when nothing refers to it any more, by
    `close`, and at the end of a `with` block. copy.deepcopy forks it.
    """

    def __init__(self, attachment: Attachment, tenant: str) -> None:
        self.attachment = attachment
        super().__init__(layers=[GridLayer(self) for _ in range(attachment.spec.layers)])
        self.tenant = tenant
        self._rows: list[Row] = []
        self._columns = Columns()
        self._closed = False

    # ---- what a model calls

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Hands k and v over for the attention function, and returns them: only the new ones."""
        if not self.attachment.attends:
            raise WrongState("the cache of kvgrid is in use without its attention: the model's attention was set to another one, or detached")
        Forward.current("the cache of kvgrid").offer(self, layer_idx, key_states, value_states)
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0, *args: Any) -> int:
        """Columns, padding included, as transformers counts them. Tokens of each row: `lengths`."""
        return self._columns.count

    def get_mask_sizes(self, query: int | torch.Tensor, layer_idx: int = 0) -> tuple[int, int]:
        """(columns after a forward of `query` new ones, or of their positions; the first one's number)"""
        new = query if isinstance(query, int) else query.shape[0]
        return self._columns.count + new, 0

    def get_max_length(self, layer_idx: int | None = None) -> int:
        return -1

    def get_max_cache_shape(self, layer_idx: int = 0) -> int:
        return -1

    @property
    def batch_size(self) -> int:
        return len(self._rows) or -1

    @property
    def max_batch_size(self) -> int:
        return self.batch_size

    @property
    def is_initialized(self) -> bool:
        return bool(self._rows)

    # ---- what `generate` calls between two forwards

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Row i becomes a copy of row beam_idx[i]: a fork, whose pages are shared until one of them writes."""
        self._select(beam_idx.tolist())

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self._select(torch.arange(len(self._rows))[indices].tolist())

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._select([row for row in range(len(self._rows)) for _ in range(repeats)])

    def crop(self, tokens_to_remove: int) -> None:
        """Removes the last columns, as the installed version of transformers understands the number: negative, how many; until 5.x also
        positive or 0, how many stay.

        Raises WrongState where a window has left behind what would be seen again, and InvalidArgument for a number that means nothing.
        """
        if tokens_to_remove < 0:
            self._cut(max(0, self._columns.count + tokens_to_remove))
        elif CROP_TAKES_LENGTH:
            self._cut(min(tokens_to_remove, self._columns.count))
        elif tokens_to_remove > 0:
            raise InvalidArgument(f"crop({tokens_to_remove}): must be a negative number, of tokens to remove")

    def reset(self) -> None:
        """Empty, and with no rows: the next forward may have another batch size."""
        self._close_rows()
        self._columns = Columns()

    # ---- what is kvgrid's own

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row, without padding."""
        return [row.length for row in self._rows]

    @property
    def sequences(self) -> list[kvgrid.Sequence]:
        """One for each row, to look at. Whoever adds tokens to one breaks the cache, which will say so."""
        return [row.sequence for row in self._rows]

    def keep(self) -> None:
        """Keeps its rows for later caches of the same tenant that begin with the same tokens (Attachment.cache): in this process, and their whole
        pages of 64 tokens in the cluster, for other processes with the same model. Pages are shared."""
        for row in self._rows:
            self.attachment.prefixes.keep(row, self.tenant)
            row.keep(self.attachment.prefix_salt)

    def match(self, token_ids: Any) -> int:
        """Goes back to where `token_ids` differs from its tokens, or before the last one; returns how many tokens it has then.

        For a conversation whose text is rendered anew each time. One row only; token_ids as in Attachment.cache.
        """
        from kvgrid.transformers.attachment import one_row_of

        if len(self._rows) > 1 or self._rows and self._rows[0].length != self._columns.count:
            raise InvalidArgument("match is for a cache of one row without padding")
        if self._rows:
            self._cut(self._rows[0].common_with(one_row_of(token_ids)[:-1]))
        return self._columns.count

    def close(self) -> None:
        """Gives its pages back. Again: nothing."""
        self._closed = True
        self._close_rows()

    def __enter__(self) -> GridCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __deepcopy__(self, memory: dict[int, Any]) -> GridCache:
        other = GridCache(self.attachment, self.tenant)
        self.attachment._caches.add(other)
        other._rows = [row.fork() for row in self._rows]
        other._columns = self._columns.copy()
        return other

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a cache of kvgrid cannot be pickled: what it has is in the grid")

    def __repr__(self) -> str:
        return f"<kvgrid.transformers.GridCache, tokens {self.lengths}>"

    # ---- rows

    def _start_with(self, row: Row | None) -> None:
        if row is not None:
            self._rows = [row]
            self._columns.append(None, 1, row.length)

    def _rows_for(self, count: int) -> list[Row]:
        """`count` rows; they are opened where the cache is empty."""
        if self._closed:
            raise WrongState("this cache is closed")
        if len(self._rows) != count:
            if self._columns.count:
                raise InvalidArgument(
                    f"the batch has {count} rows and the cache {len(self._rows)}: batch_repeat_interleave makes more of them"
                )
            self._close_rows()
            self._rows = [Row(self.attachment.grid_model.open(tenant=self.tenant)) for _ in range(count)]
        return self._rows

    def _select(self, sources: list[int]) -> None:
        """Forks first, so that a refusal changes nothing."""
        used: set[int] = set()
        rows = []
        for source in sources:
            rows.append(self._rows[source].fork() if source in used else self._rows[source])
            used.add(source)
        for index, row in enumerate(self._rows):
            if index not in used:
                row.close()
        self._rows = rows
        self._columns.select(sources)

    def _cut(self, count: int) -> None:
        """All rows, or none."""
        lengths = [self._columns.tokens_within(count, index) for index in range(len(self._rows))]
        if len(self._rows) == 1:
            self._rows[0].truncate(lengths[0])
        else:
            cut = [row.fork_at(length) for row, length in zip(self._rows, lengths, strict=True)]
            self._close_rows()
            self._rows = cut
        self._columns.cut(count)

    def _close_rows(self) -> None:
        rows, self._rows = self._rows, []
        for row in rows:
            row.close()
