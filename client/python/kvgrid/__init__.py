"""kvgrid: a KV cache that lies in the memory of many machines, with attention computed where the keys and values lie.

    import kvgrid

    with kvgrid.local(workers=2) as cluster, cluster.connect() as client:
        model = client.register(kvgrid.ModelSpec(layers=2, query_heads=8, kv_heads=2, head_dim=64, dtype="f32"))
        with model.open() as sequence, client.step([(sequence, 100)]) as step:
            for layer in range(2):
                o = step.layer(layer, q, k, v)

Every failure is a kvgrid.Error, of the subclass that its code names. All calls may be made from any thread, and let other threads run
while they wait. kvgrid.aio has the same names for asyncio.
"""

from typing import Any

from kvgrid import layer_types
from kvgrid._native import version as __version__
from kvgrid.client import Client, connect
from kvgrid.errors import (
    AlreadyExists,
    Busy,
    Corrupt,
    DeadlineExceeded,
    Error,
    Internal,
    InvalidArgument,
    NoRoom,
    NotFound,
    PeerLost,
    StaleGeneration,
    Unavailable,
    Unsupported,
    WrongState,
)
from kvgrid.local_cluster import LocalCluster, local
from kvgrid.model import GpuTensors, Model
from kvgrid.model_spec import ModelSpec
from kvgrid.sequence import Sequence
from kvgrid.step import Step

__all__ = [
    "AlreadyExists",
    "Busy",
    "Client",
    "Corrupt",
    "DeadlineExceeded",
    "Error",
    "GpuTensors",
    "Internal",
    "InvalidArgument",
    "LocalCluster",
    "Model",
    "ModelSpec",
    "NoRoom",
    "NotFound",
    "PeerLost",
    "Sequence",
    "StaleGeneration",
    "Step",
    "Unavailable",
    "Unsupported",
    "WrongState",
    "__version__",
    "connect",
    "layer_types",
    "local",
]


def __getattr__(name: str) -> Any:
    if name == "aio":  # asyncio only for those who use it
        import importlib

        return importlib.import_module("kvgrid.aio")
    raise AttributeError(f"module 'kvgrid' has no attribute {name!r}")
