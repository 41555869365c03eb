"""Sequences that are kept for their beginnings: a prompt that many requests share is computed once."""

from __future__ import annotations

from kvgrid.errors import NotFound, WrongState
from kvgrid.transformers.row import Row


class Prefixes:
    """At most `count_max` kept rows; the one that was not used for longest is closed first. Tenants do not see one another's.

    A kept row shares its pages with those forked from it until one of them writes (copy on write).
    """

    def __init__(self, count_max: int) -> None:
        self._count_max = count_max
        self._kept: list[tuple[str, Row]] = []  # the last used one last

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, row: Row, tenant: str) -> None:
        """Keeps a fork of `row`, in place of those that are a beginning of it. Cost: one call, and a look at each kept row."""
        tokens = row.tokens
        if not tokens or self._count_max == 0:
            return
        if any(of == tenant and kept.common_with(tokens) == len(tokens) for of, kept in self._kept):
            return
        for entry in list(self._kept):
            if entry[0] == tenant and entry[1].common_with(tokens) == entry[1].length:
                self._drop(entry)
        self._kept.append((tenant, row.fork()))
        while len(self._kept) > self._count_max:
            self._drop(self._kept[0])

    def fork_of(self, tokens: list[int], tenant: str) -> Row | None:
        """A new row with as many of the first tokens as some kept one has, but never all: the last one has to be computed. None: no such."""
        candidates = [(row.common_with(tokens[:-1]), place) for place, (of, row) in enumerate(self._kept) if of == tenant]
        for common, place in sorted(candidates, reverse=True):
            entry = self._kept[place]
            if common == 0:
                break
            try:
                found = entry[1].fork_at(common)
            except WrongState:  # some of these tokens have left a window
                continue
            except NotFound:  # gone with a worker, or closed by somebody
                continue
            self._kept.remove(entry)
            self._kept.append(entry)
            return found
        return None

    def _drop(self, entry: tuple[str, Row]) -> None:
        self._kept.remove(entry)
        entry[1].close()

    def clear(self) -> None:
        while self._kept:
            self._drop(self._kept[0])
