"""A model that the cluster knows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from kvgrid import _native
from kvgrid.model_spec import ModelSpec
from kvgrid.prefix import page_names
from kvgrid.sequence import Sequence

if TYPE_CHECKING:
    from kvgrid.client import Client


class GpuTensors(NamedTuple):
    """q and o [tokens, query_heads, head_dim], k and v [tokens, kv_heads, head_dim]."""

    q: Any
    k: Any
    v: Any
    o: Any


class Model:
    """A model that the cluster knows, from Client.register or Client.models."""

    __slots__ = ("_native", "_client")

    def __init__(self, native: _native.RegisteredModel, client: Client) -> None:
        self._native = native
        self._client = client

    @property
    def id(self) -> int:
        return self._native.id

    @property
    def spec(self) -> ModelSpec:
        return ModelSpec._of(self._native.spec)

    @property
    def grid(self) -> tuple[int, int]:
        """(head parts, sequence parts): how its cache is split over the workers."""
        return self._native.grid.head_parts, self._native.grid.sequence_parts

    @property
    def pool_bytes_per_worker(self) -> int:
        return self._native.pool_bytes_per_worker

    def open(
        self,
        *,
        tenant: str = "default",
        expected_tokens: int = 0,
        window: int = 0,
        sinks: int = 0,
        token_ids: Iterable[int] | None = None,
        prefix_salt: bytes = b"",
    ) -> Sequence:
        """A new sequence, empty; with `token_ids` it may begin with some of them.

        tenant            to whom it is accounted
        expected_tokens   0: not known; otherwise refused (NoRoom) if the grid could not hold them now
        window, sinks     0: the model's own; otherwise as Sequence.set_window
        token_ids         of a prompt: the sequence begins with the first of them, whole pages of 64, that some sequence of the same tenant was
                          kept for (Sequence.keep), in whichever process. Sequence.prefix_length says how many. The last one is always left to compute
        prefix_salt       as it was kept with
        """
        names = page_names(list(token_ids)[:-1], prefix_salt) if token_ids is not None else b""
        native = self._client._native.open(self._native, tenant, expected_tokens, window, sinks, names)
        return Sequence(native, self._client)

    def gpu_tensors(self, tokens: int, *, gpu: int = 0) -> GpuTensors:
        """Memory on a GPU of this process for the tensors of steps of up to so many tokens, which layer calls use where it lies.

        They export DLPack: `q, k, v, o = map(torch.from_dlpack, model.gpu_tensors(8))`. A step of fewer tokens takes their first rows. Nothing is in
        them yet. The memory is shared with the lead, and freed when the last tensor of it is gone.

        gpu      CUDA's number for it in this process
        Raises   Unsupported: no such GPU, or one whose memory the lead does not reach (it is on another host, or on a CPU). NoRoom
        """
        return GpuTensors(*self._client._gpu_memory().tensors(self._native, tokens, gpu))

    def __repr__(self) -> str:
        return f"<kvgrid.Model {self.id} '{self.spec.name}', grid {self.grid[0]} x {self.grid[1]}>"
