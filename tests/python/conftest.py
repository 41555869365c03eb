"""One cluster for all tests that only need some, and models in it: each test registers what it needs under a name of its own."""

import itertools

import numpy
import pytest

import kvgrid


def pytest_configure(config):
    config.seed = 20240229


@pytest.fixture(scope="session")
def cluster():
    with kvgrid.local(workers=4, memory="256MiB") as started:
        yield started


@pytest.fixture
def client(cluster):
    with cluster.connect() as connected:
        yield connected


@pytest.fixture
def random(request):
    print("seed", request.config.seed)
    return numpy.random.default_rng(request.config.seed)


_names = itertools.count()


@pytest.fixture
def register(client):
    """register(dtype="f32", ...): a small model, of 4 MiB on each worker."""

    def registered(**fields):
        geometry = {"layers": 2, "query_heads": 4, "kv_heads": 2, "head_dim": 32, "dtype": "f32", **fields}
        spec = kvgrid.ModelSpec(name=f"model-{next(_names)}", **geometry)
        return client.register(spec, pool_bytes_per_worker=4 << 20)

    return registered
