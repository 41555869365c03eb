"""One transaction that adds tokens to some sequences."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from kvgrid import _native
from kvgrid.errors import InvalidArgument
from kvgrid.tensors import contiguous, empty_like, is_on_gpu, on_gpu, on_stream, readable, stream_of

if TYPE_CHECKING:
    from kvgrid.client import Client
    from kvgrid.sequence import Sequence


class Step:
    """One transaction that adds tokens to some sequences, made by Client.step.

    As a context manager it commits at the end of the block, and aborts when an exception leaves it. Between the two nothing else sees the
    new tokens; after an abort every sequence is as it was.
    """

    __slots__ = ("_native", "_client", "_sequences", "__weakref__")

    def __init__(self, native: _native.Step, client: Client, sequences: list[Sequence]) -> None:
        self._native = native
        self._client = client
        self._sequences = sequences  # one that nobody else holds would be closed meanwhile, which the step forbids

    @property
    def token_count(self) -> int:
        """New tokens, of all parts together: the first dimension of q, k, v and o."""
        return self._native.token_count

    @property
    def lengths(self) -> list[int]:
        """The committed length of each part's sequence before this step."""
        return self._native.lengths

    def layer(self, layer: int, q: Any = None, k: Any = None, v: Any = None, out: Any = None, *, stream: Any = None) -> Any:
        """Appends k and v, and attends over the whole context of each sequence. Layers are called in order.

        In a step of kind "iterate" they are called in any order, and again: with q, with k and v, or with all three. k and v replace what the
        step has written for its new tokens, and q sees what stands there.

        q        [tokens, query_heads, head_dim]; None in a step of kind "write"
        k, v     [tokens, kv_heads, head_dim], keys with RoPE applied; None where the layer owns no KV
        out      written and returned where it is given, as q but contiguous
        stream   of tensors on a GPU: a stream of torch or cupy, one with __cuda_stream__, or its number (CUstream). None: torch's current one,
                 for others the legacy default stream. What was queued there before is done when q, k and v are read, and what is queued there
                 afterwards finds o
        Returns  o [tokens, query_heads, head_dim]: an array of numpy where q is one, a tensor of torch where q is one, else an object that
                 exports DLPack and the buffer protocol. None without q
        Rows     the new tokens in the order of the step's parts
        Tensors  in the model's dtype: all that export DLPack (torch) or the buffer protocol (numpy). bf16 may also come as uint16, or as
                 ml_dtypes.bfloat16. Those that are not contiguous are copied once; gradients do not flow through
        GPUs     all tensors of a call are on the CPU, or on one GPU. There, nothing is copied that lies in Model.gpu_tensors of this client and
                 one call to it; other tensors are copied on the GPU, into memory that the lead shares, or through the host's where the lead
                 does not reach that GPU. Their values are not looked at: a NaN or infinity in k or v is taken
        Raises   InvalidArgument: a tensor's shape or dtype, a layer out of order; a NaN or infinity in k or v (unless the model allows
                 them), after which the same layer can be called again. NoRoom: the GPU has none left for the tensors
        """
        first = k if q is None else q
        if is_on_gpu(first):
            with on_stream(first, stream):
                return self._layer_on_gpu(layer, q, k, v, out, stream_of(first, stream))
        if out is None:
            out = empty_like(q)
        made = self._native.layer(layer, readable(q), readable(k), readable(v), readable(out))
        return made if out is None else out

    def _layer_on_gpu(self, layer: int, q: Any, k: Any, v: Any, out: Any, stream: int) -> Any:
        if out is None and q is not None:
            out = empty_like(q)
            if out is None:
                raise InvalidArgument(f"out is missing: a {type(q).__name__} on a GPU needs one to write o to")
        q, k, v = contiguous(q), contiguous(k), contiguous(v)
        self._client._gpu_memory().layer(self._native, layer, on_gpu(q), on_gpu(k), on_gpu(v), on_gpu(out), stream)
        return out

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
