"""One row of a batch: a sequence in the grid, and what is known of its tokens."""

from __future__ import annotations

import contextlib

import kvgrid
from kvgrid.errors import WrongState


class Row:
    """A sequence and its token ids.

    length   tokens, as this process knows it; a step finds out if the grid differs
    tokens   their ids; None once some came as embeddings
    """

    __slots__ = ("sequence", "length", "tokens")

    def __init__(self, sequence: kvgrid.Sequence, length: int = 0, tokens: list[int] | None = None) -> None:
        self.sequence = sequence
        self.length = length
        self.tokens = [] if length == 0 else tokens

    def fork(self) -> Row:
        return Row(self.sequence.fork(), self.length, None if self.tokens is None else list(self.tokens))

    def fork_at(self, length: int) -> Row:
        """Its first `length` tokens as a row of its own. Raises WrongState where some of them have left a window."""
        copy = self.fork()
        copy.truncate(length)
        return copy

    def truncate(self, length: int) -> None:
        if length == self.length:
            return
        self.sequence.truncate(length)
        self.length = length
        if self.tokens is not None:
            del self.tokens[length:]
        elif length == 0:
            self.tokens = []

    def grow(self, count: int, tokens: list[int] | None) -> None:
        self.length += count
        if tokens is None:
            self.tokens = None
        elif self.tokens is not None:
            self.tokens.extend(tokens)

    def common_with(self, tokens: list[int]) -> int:
        """How many of its first tokens are those of `tokens`."""
        mine = self.tokens or []
        count = min(len(mine), len(tokens))
        if mine[:count] == tokens[:count]:
            return count
        return next(place for place in range(count) if mine[place] != tokens[place])

    def keep(self, salt: bytes) -> None:
        """Keeps its whole pages in the cluster, if its tokens are known and none of them has left a window."""
        if self.tokens:
            with contextlib.suppress(WrongState):
                self.sequence.keep(self.tokens, prefix_salt=salt)

    def close(self) -> None:
        self.sequence.close()
