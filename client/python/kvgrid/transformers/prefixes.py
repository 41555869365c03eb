"""Sequences that are kept for their beginnings: a prompt that many requests share is computed once."""

from __future__ import annotations

import threading

from kvgrid.errors import NotFound, WrongState
from kvgrid.transformers.row import Row


class Prefixes:
    """At most `count_max` kept rows; the one that was not used for longest is closed first. Tenants do not see one another's.

    A kept row shares its pages with those forked from it until one of them writes (copy on write). Threads may share it.
    """

    def __init__(self, count_max: int, *, slides: bool) -> None:
        self._count_max = count_max
        self._slides = slides  # the model has windows: a long row cannot always be cut to serve for a short one
        self._lock = threading.Lock()
        self._kept: list[tuple[str, Row]] = []  # the last used one last

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, row: Row, tenant: str) -> None:
        """Keeps a fork of `row`, in place of those that are a beginning of it (without windows). Cost: one call, a look at each kept row."""
        tokens = row.tokens
        if not tokens or self._count_max == 0:
            return
        with self._lock:
            self._keep(row, tokens, tenant)

    def _keep(self, row: Row, tokens: list[int], tenant: str) -> None:
        for entry in list(self._kept):
            if entry[0] != tenant:
                continue
            common, kept_length = entry[1].common_with(tokens), entry[1].length
            if common == len(tokens) and (kept_length == common or not self._slides):
                return
            if common == kept_length and not self._slides:
                self._drop(entry)
        self._kept.append((tenant, row.fork()))
        while len(self._kept) > self._count_max:
            self._drop(self._kept[0])

    def fork_of(self, tokens: list[int], tenant: str) -> Row | None:
        """A new row with as many of the first tokens as some kept one has, but never all: the last one has to be computed. None: no such."""
        with self._lock:
            return self._fork_of(tokens, tenant)

    def _fork_of(self, tokens: list[int], tenant: str) -> Row | None:
        candidates = [(row.common_with(tokens[:-1]), place) for place, (of, row) in enumerate(self._kept) if of == tenant]
        for common, place in sorted(candidates, reverse=True):
            entry = self._kept[place]
            if common == 0:
                break
            try:
                found = entry[1].fork_at(common)
            except (WrongState, NotFound):  # some of these tokens have left a window; it is gone with a worker
                continue
            self._kept.remove(entry)
            self._kept.append(entry)
            return found
        return None

    def _drop(self, entry: tuple[str, Row]) -> None:
        self._kept.remove(entry)
        entry[1].close()

    def clear(self) -> None:
        with self._lock:
            while self._kept:
                self._drop(self._kept[0])
