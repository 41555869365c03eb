"""One transaction that adds tokens to some sequences."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from kvgrid import _native
from kvgrid.tensors import empty_like, readable

if TYPE_CHECKING:
    from kvgrid.sequence import Sequence


class Step:
    """One transaction that adds tokens to some sequences, made by Client.step.

    As a context manager it commits at the end of the block, and aborts when an exception leaves it. Between the two nothing else sees the
    new tokens; after an abort every sequence is as it was.
    """

    __slots__ = ("_native", "_sequences", "__weakref__")

    def __init__(self, native: _native.Step, sequences: list[Sequence]) -> None:
        self._native = native
        self._sequences = sequences  # one that nobody else holds would be closed meanwhile, which the step forbids

    @property
    def token_count(self) -> int:
        """New tokens, of all parts together: the first dimension of q, k, v and o."""
        return self._native.token_count

    @property
    def lengths(self) -> list[int]:
        """The committed length of each part's sequence before this step."""
        return self._native.lengths

    def layer(self, layer: int, q: Any = None, k: Any = None, v: Any = None, out: Any = None) -> Any:
        """Appends k and v, and attends over the whole context of each sequence. Layers are called in order.

        In a step of kind "iterate" they are called in any order, and again: with q, with k and v, or with all three. k and v replace what the
        step has written for its new tokens, and q sees what stands there.

        q        [tokens, query_heads, head_dim]; None in a step of kind "write"
        k, v     [tokens, kv_heads, head_dim], keys with RoPE applied; None where the layer owns no KV
        out      written and returned where it is given, as q but contiguous
        Returns  o [tokens, query_heads, head_dim]: an array of numpy where q is one, a tensor of torch where q is one, else an object that
                 exports DLPack and the buffer protocol. None without q
        Rows     the new tokens in the order of the step's parts
        Tensors  in the CPU's memory and the model's dtype: all that export DLPack (torch) or the buffer protocol (numpy). bf16 may also come
                 as uint16, or as ml_dtypes.bfloat16. Those that are not contiguous are copied once; gradients do not flow through
        Raises   InvalidArgument: a tensor's shape or dtype, a layer out of order; a NaN or infinity in k or v (unless the model allows
                 them), after which the same layer can be called again. Unsupported: a tensor on a GPU
        """
        if out is None:
            out = empty_like(q)
        made = self._native.layer(layer, readable(q), readable(k), readable(v), readable(out))
        return made if out is None else out

    def commit(self) -> None:
        """The new lengths become visible in all layers at once. Raises WrongState where a layer was not called; the step then stays open.

        After Unavailable, DeadlineExceeded or StaleGeneration look at the sequences' lengths: all have grown, or none has.
        """
        self._native.commit()
        self._sequences = []

    def abort(self) -> None:
        """Nothing has happened then."""
        self._native.abort()
        self._sequences = []

    def __enter__(self) -> Step:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._give_up()
            return
        try:
            self.commit()
        except BaseException:
            self._give_up()
            raise

    def _give_up(self) -> None:
        """Aborts, if it is open, waiting a moment at most: an exception is under way, or the client's end."""
        self._native.end()
        self._sequences = []
