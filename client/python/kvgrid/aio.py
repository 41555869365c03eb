"""The same names for asyncio: every call that may wait is awaited.

    async with await kvgrid.aio.connect(endpoint) as client:
        model = await client.register(spec)
        async with await model.open() as sequence:
            async with await client.step([(sequence, 1)]) as step:
                o = await step.layer(0, q, k, v)

Each call runs in a thread of its client's own pool and leaves the event loop free; the threads wait without the GIL. A task that is cancelled
stops waiting; its call ends by itself, within the client's time-out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Literal, TypeVar

import kvgrid
from kvgrid import _native
from kvgrid.model import GpuTensors
from kvgrid.model_spec import ModelSpec
from kvgrid.tensors import is_on_gpu, stream_of

_CALLS_MAX = 32  # of one client at once; further ones wait for their turn

Value = TypeVar("Value")


class _Calls:
    """Where the calls of one client run."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_CALLS_MAX, thread_name_prefix="kvgrid-aio")

    async def __call__(self, call: Callable[..., Value], *arguments: Any) -> Value:
        return await asyncio.get_running_loop().run_in_executor(self._pool, call, *arguments)

    def end(self) -> None:
        self._pool.shutdown(wait=False)


class AsyncStep:
    """As kvgrid.Step. At the end of the block it commits; an exception, also that of a cancelled task, aborts it."""

    def __init__(self, step: kvgrid.Step, calls: _Calls) -> None:
        self._step = step
        self._calls = calls

    @property
    def token_count(self) -> int:
        return self._step.token_count

    @property
    def lengths(self) -> list[int]:
        return self._step.lengths

    async def layer(
        self, layer: int, q: Any = None, k: Any = None, v: Any = None, out: Any = None, *, stream: Any = None
    ) -> Any:
        """As kvgrid.Step.layer. The tensors must not change before it returns. `stream` None: torch's current one of the calling thread."""
        first = k if q is None else q
        if is_on_gpu(first):  # current streams are a thread's own
            stream = stream_of(first, stream)
        return await self._calls(lambda: self._step.layer(layer, q, k, v, out, stream=stream))

    async def commit(self) -> None:
        await self._calls(self._step.commit)

    async def abort(self) -> None:
        await self._calls(self._step.abort)

    async def __aenter__(self) -> AsyncStep:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._calls(self._step.__exit__, kind, error, trace)


class AsyncSequence:
    """As kvgrid.Sequence."""

    def __init__(self, sequence: kvgrid.Sequence, calls: _Calls) -> None:
        self._sequence = sequence
        self._calls = calls

    @property
    def id(self) -> int:
        return self._sequence.id

    async def length(self) -> int:
        """Committed tokens."""
        return (await self.inspect()).length

    async def inspect(self) -> _native.SequenceInfo:
        return await self._calls(self._sequence.inspect)

    async def fork(self) -> AsyncSequence:
        return AsyncSequence(await self._calls(self._sequence.fork), self._calls)

    @property
    def prefix_length(self) -> int:
        return self._sequence.prefix_length

    async def keep(self, token_ids: Iterable[int], *, prefix_salt: bytes = b"") -> None:
        await self._calls(lambda: self._sequence.keep(token_ids, prefix_salt=prefix_salt))

    async def truncate(self, length: int) -> None:
        await self._calls(self._sequence.truncate, length)

    async def set_window(self, window: int, sinks: int = 0) -> None:
        await self._calls(self._sequence.set_window, window, sinks)

    async def rewrite_kv(self, layer: int, first: int, k: Any, v: Any) -> None:
        await self._calls(self._sequence.rewrite_kv, layer, first, k, v)

    async def read_kv(self, layer: int, first: int, count: int) -> tuple[Any, Any]:
        return await self._calls(self._sequence.read_kv, layer, first, count)

    async def close(self) -> None:
        await self._calls(self._sequence.close)

    def release(self) -> int:
        return self._sequence.release()

    async def __aenter__(self) -> AsyncSequence:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._calls(self._sequence.__exit__, kind, error, trace)


class AsyncModel:
    """As kvgrid.Model."""

    def __init__(self, model: kvgrid.Model, calls: _Calls) -> None:
        self._model = model
        self._calls = calls

    @property
    def id(self) -> int:
        return self._model.id

    @property
    def spec(self) -> ModelSpec:
        return self._model.spec

    @property
    def grid(self) -> tuple[int, int]:
        return self._model.grid

    async def gpu_tensors(self, tokens: int, *, gpu: int = 0) -> GpuTensors:
        return await self._calls(lambda: self._model.gpu_tensors(tokens, gpu=gpu))

    async def open(
        self,
        *,
        tenant: str = "default",
        expected_tokens: int = 0,
        window: int = 0,
        sinks: int = 0,
        token_ids: Iterable[int] | None = None,
        prefix_salt: bytes = b"",
    ) -> AsyncSequence:
        def opened() -> kvgrid.Sequence:
            return self._model.open(
                tenant=tenant,
                expected_tokens=expected_tokens,
                window=window,
                sinks=sinks,
                token_ids=token_ids,
                prefix_salt=prefix_salt,
            )

        return AsyncSequence(await self._calls(opened), self._calls)


class AsyncClient:
    """As kvgrid.Client."""

    def __init__(self, client: kvgrid.Client, calls: _Calls) -> None:
        self._client = client
        self._calls = calls

    async def status(self) -> _native.Status:
        return await self._calls(self._client.status)

    async def register(
        self, spec: ModelSpec, *, grid: tuple[int, int] | None = None, pool_bytes_per_worker: int = 0
    ) -> AsyncModel:
        def registered() -> kvgrid.Model:
            return self._client.register(spec, grid=grid, pool_bytes_per_worker=pool_bytes_per_worker)

        return AsyncModel(await self._calls(registered), self._calls)

    async def models(self) -> list[AsyncModel]:
        return [AsyncModel(model, self._calls) for model in await self._calls(self._client.models)]

    async def sequences(self, model: AsyncModel | None = None) -> list[_native.ListedSequence]:
        return await self._calls(self._client.sequences, model._model if model else None)

    async def attach(self, id: int) -> AsyncSequence:
        return AsyncSequence(await self._calls(self._client.attach, id), self._calls)

    async def occupancy(self) -> _native.Occupancy:
        return await self._calls(self._client.occupancy)

    async def step(
        self, parts: Iterable[tuple[AsyncSequence, int]], *, kind: Literal["attend", "write", "iterate"] = "attend"
    ) -> AsyncStep:
        plain = [(part._sequence, tokens) for part, tokens in parts]
        return AsyncStep(await self._calls(lambda: self._client.step(plain, kind=kind)), self._calls)

    async def close(self) -> None:
        await self._calls(self._client.close)
        self._calls.end()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


async def connect(endpoint: str, *, timeout: float = 30.0, wait_until_ready: bool = True) -> AsyncClient:
    """As kvgrid.connect."""
    calls = _Calls()
    try:
        client = await calls(lambda: kvgrid.connect(endpoint, timeout=timeout, wait_until_ready=wait_until_ready))
    except BaseException:
        calls.end()
        raise
    return AsyncClient(client, calls)
