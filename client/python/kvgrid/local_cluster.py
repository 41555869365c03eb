"""A cluster on this host, started by this program and gone with it."""

from __future__ import annotations

import atexit
import weakref
from pathlib import Path
from types import TracebackType

from kvgrid import _native
from kvgrid.client import Client, connect

_PROGRAMS = Path(__file__).parent / "bin"
_running: weakref.WeakSet[LocalCluster] = weakref.WeakSet()


class LocalCluster:
    """A coordinator and workers on this host, made by kvgrid.local.

    It ends by `stop`, at the end of a `with` block, when nothing refers to it any more, and with this process, however that ends: a second
    after a SIGKILL, too.
    """

    def __init__(self, native: _native.LocalCluster) -> None:
        self._native = native
        self._clients: weakref.WeakSet[Client] = weakref.WeakSet()
        _running.add(self)

    @property
    def endpoint(self) -> str:
        """For kvgrid.connect, in this process or another one on this host."""
        return self._native.endpoint

    def connect(self, *, timeout: float = 30.0) -> Client:
        """A client of this cluster; it is closed when the cluster stops."""
        client = connect(self.endpoint, timeout=timeout)
        self._clients.add(client)
        return client

    def log(self) -> str:
        """The last lines of the programs' logs."""
        return self._native.log_ends()

    def stop(self) -> None:
        """Closes the clients of `connect` and ends all processes; steps that others have open get a second. Again: nothing."""
        for client in list(self._clients):
            client.close()
        self._native.stop()

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def local(
    workers: int = 4,
    *,
    memory: str = "1GiB",
    threads: int = 0,
    processes: bool = False,
    device: str = "cpu",
    timeout: float = 30.0,
) -> LocalCluster:
    """Starts a cluster on this host and waits until it is ready.

    memory      of each worker, for pages
    threads     of each worker; 0: the host's cores shared among them
    processes   False: the workers are threads of one process, which starts fastest and needs no mpirun. True: a process for each, under
                mpirun, as on several hosts
    device      "cpu", "gpu", "gpu:1", ... or "auto"; the programs have to be built with CUDA
    timeout     seconds that the start may take
    Raises      InvalidArgument; NotFound: a program is missing; DeadlineExceeded, Unavailable: with the last lines of the log
    """
    arguments = [] if device == "auto" else ["--device", device]
    native = _native.start_local_cluster(
        workers, memory, threads, processes, round(timeout * 1000), arguments, str(_PROGRAMS)
    )
    return LocalCluster(native)


@atexit.register
def _stop_all() -> None:
    for cluster in list(_running):
        cluster.stop()
