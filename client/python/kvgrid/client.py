"""A connection to a cluster."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable
from types import TracebackType
from typing import Literal

from kvgrid import _native
from kvgrid.model import Model
from kvgrid.model_spec import ModelSpec
from kvgrid.sequence import Sequence
from kvgrid.step import Step


class Client:
    """A connection to a cluster, made by kvgrid.connect or LocalCluster.connect.

    As a context manager it is closed at the end of the block. All calls may be made from any thread, and end within the client's time-out:
    DeadlineExceeded is also a TimeoutError, Unavailable also a ConnectionError. Calls that only read look for the cluster again and are
    repeated until then; others are sent once.
    """

    def __init__(self, native: _native.Client, timeout_ms: int) -> None:
        self._native = native
        self._timeout_ms = timeout_ms
        self._gpu: _native.GpuMemory | None = None
        self._gpu_lock = threading.Lock()
        self._sequences: weakref.WeakSet[Sequence] = weakref.WeakSet()
        self._steps: weakref.WeakSet[Step] = weakref.WeakSet()

    def _keep(self, sequence: Sequence) -> None:
        self._sequences.add(sequence)

    def status(self) -> _native.Status:
        """Workers, whether the cluster is ready, and if not, why."""
        return self._native.status()

    def register(
        self, spec: ModelSpec, *, grid: tuple[int, int] | None = None, pool_bytes_per_worker: int = 0
    ) -> Model:
        """Makes a model known and takes memory for its pages on every worker. An equal spec of the same name is the same model.

        grid                    (head parts, sequence parts), whose product is the number of workers; None: chosen
        pool_bytes_per_worker   0: all memory of each worker that no model has yet
        Raises AlreadyExists where the name means another spec, NoRoom where memory is short.
        """
        head_parts, sequence_parts = grid or (0, 0)
        return Model(self._native.register(spec._native, head_parts, sequence_parts, pool_bytes_per_worker), self)

    def models(self) -> list[Model]:
        return [Model(native, self) for native in self._native.models()]

    def sequences(self, model: Model | None = None) -> list[_native.ListedSequence]:
        """Those that are open, of all clients: of one model, or of all."""
        return self._native.sequences(model.id if model else 0)

    def attach(self, id: int) -> Sequence:
        """A sequence that is open in the cluster, e.g. after Sequence.release; it is closed with this object."""
        return Sequence(self._native.attach(id), self)

    def occupancy(self) -> _native.Occupancy:
        """How many pages are free, used and reserved on every worker, all at the same moment."""
        return self._native.occupancy()

    def step(
        self, parts: Iterable[tuple[Sequence, int]], *, kind: Literal["attend", "write", "iterate"] = "attend"
    ) -> Step:
        """Begins a step: reserves pages for the new tokens of each sequence on every worker, or refuses with nothing changed.

        parts    (sequence, number of new tokens), all of one model and each at most once; prefill chunks and decodes may go together
        kind     "attend": every layer is called, in order. "write": only the layers that own KV, with k and v; nothing is attended (import).
                 "iterate": layers are called in any order, and again: passes over a prompt where layers read a later layer's KV
        Raises   NoRoom, and how many tokens would fit without what the cluster only keeps (Sequence.keep). Busy where another step holds one of the sequences
        """
        parts = list(parts)
        native = self._native.begin([(sequence._native, tokens) for sequence, tokens in parts], kind)
        step = Step(native, self, [sequence for sequence, _ in parts])
        self._steps.add(step)
        return step

    def _gpu_memory(self) -> _native.GpuMemory:
        """Where tensors of layer calls are on a GPU. The CUDA driver is looked for then, not before."""
        if self._gpu is None:
            with self._gpu_lock:
                if self._gpu is None:
                    self._gpu = _native.gpu_memory(self._native, self._timeout_ms)
        return self._gpu

    def close(self) -> None:
        """Aborts steps that are open, closes the sequences that are not released, and ends the connection."""
        if self._native.ended:
            return
        for step in list(self._steps):
            step._give_up()
        for sequence in list(self._sequences):
            sequence._native.end()
        if self._gpu is not None:
            self._gpu.end()
        self._native.end()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def connect(endpoint: str, *, timeout: float = 30.0, wait_until_ready: bool = True) -> Client:
    """Connects to a cluster's coordinator.

    endpoint           "host:port" or "unix:/path"
    timeout            seconds, of this and of every later call
    wait_until_ready   False: nobody is called yet, so that Client.status can say what is missing
    Raises Unavailable where nobody answers in time, or the cluster is not ready, and why.
    """
    timeout_ms = round(timeout * 1000)
    return Client(_native.connect(endpoint, timeout_ms, wait_until_ready), timeout_ms)
