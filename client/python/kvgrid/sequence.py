"""One growing context."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from kvgrid import _native
from kvgrid.prefix import page_names
from kvgrid.tensors import array_of

if TYPE_CHECKING:
    from kvgrid.client import Client


class Sequence:
    """One growing context, made by Model.open, Client.attach or `fork`.

    It is closed in the cluster, and its pages given back, at the end of a `with` block, by `close`, with its Client, and when nothing refers
    to it any more; `release` leaves it open.
    """

    __slots__ = ("_native", "_client", "__weakref__")

    def __init__(self, native: _native.Sequence, client: Client) -> None:
        self._native = native
        self._client = client
        client._keep(self)

    @property
    def id(self) -> int:
        """Given by the cluster, never used again."""
        return self._native.id

    @property
    def length(self) -> int:
        """Committed tokens. Asks the cluster."""
        return self.inspect().length

    def inspect(self) -> _native.SequenceInfo:
        """Length, window, whether a step is open, and pages by rank."""
        return self._native.inspect()

    def fork(self) -> Sequence:
        """A second sequence with the same tokens. Pages are shared until one of the two writes to them."""
        return Sequence(self._native.fork(), self._client)

    @property
    def prefix_length(self) -> int:
        """The tokens that Model.open found kept, and that need not be computed."""
        return self._native.prefix_length

    def keep(self, token_ids: Iterable[int], *, prefix_salt: bytes = b"") -> None:
        """Keeps its whole pages, of 64 tokens each, for those who open a sequence with the same token ids and tenant, in whichever process.

        It is kept, as a fork, until others need its pages or its place; with less than a page, nothing is.

        token_ids     of its first tokens
        prefix_salt   what else K and V depend on: which weights and adapters, or what came as embeddings. Only those who say the same find it
        Raises        Busy while a step is open. WrongState where tokens have left a window, or it has one of its own
        """
        names = page_names(token_ids, prefix_salt)
        if names:
            self._native.keep(names)

    def truncate(self, length: int) -> None:
        """Forgets all tokens from `length` on. Raises Busy while a step holds the sequence."""
        self._native.truncate(length)

    def set_window(self, window: int, sinks: int = 0) -> None:
        """From now on every layer sees at most `window` tokens, and the first `sinks` ones (lossy); pages that leave it are given back."""
        self._native.set_window(window, sinks)

    def read_kv(self, layer: int, first: int, count: int) -> tuple[Any, Any]:
        """k and v of `count` tokens from `first` on, each [count, kv_heads, head_dim] in the model's dtype.

        `layer` owns its KV. Arrays of numpy where that is installed and has the dtype, else (bf16) objects that export DLPack, for torch.
        """
        k, v = self._native.read_kv(layer, first, count)
        return array_of(k, self._native.dtype), array_of(v, self._native.dtype)

    def rewrite_kv(self, layer: int, first: int, k: Any, v: Any) -> None:
        """Puts k and v [count, kv_heads, head_dim] in the place of committed tokens from `first` on, in this sequence alone.

        `layer` owns its KV. Pages that forks share are copied first.
        Raises Busy while a step is open, NoRoom for the copies, WrongState where tokens have left the window, Unsupported over fp8.
        """
        self._native.rewrite_kv(layer, first, len(k), k, v)

    def close(self) -> None:
        """Gives its pages back. Raises Busy while a step is open, and stays open then. Nothing, where it is closed or released already."""
        if not self._native.ended:
            self._native.close()

    def release(self) -> int:
        """Leaves the sequence open in the cluster and ends this object. Returns the id, for Client.attach."""
        return self._native.release()

    def __enter__(self) -> Sequence:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._native.end()  # closes it too, but says nothing over the exception that is under way

    def __repr__(self) -> str:
        return "<kvgrid.Sequence, closed>" if self._native.ended else f"<kvgrid.Sequence {self.id}>"
