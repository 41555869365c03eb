"""What the extension asks the CUDA driver for, with one whose GPU is the host's memory (host_cuda_driver.c): tensors on it go through the host's
memory to workers that do not reach it. Each test runs in a process of its own, which finds that driver first."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent

PREPARED = """
import ctypes
import numpy
import pytest
import torch
import kvgrid
from test_tensors import OnAnotherDevice

driver = ctypes.CDLL("libcuda.so.1")
random = numpy.random.default_rng(4)

def drawn(tokens):
    return [torch.from_numpy(random.standard_normal((tokens, heads, 32)).astype("float32")) for heads in (4, 2, 2)]

def on_gpu(tensors):
    return [OnAnotherDevice(tensor) for tensor in tensors]

def opened(client):
    spec = kvgrid.ModelSpec(name="small", layers=2, query_heads=4, kv_heads=2, head_dim=32, dtype="f32")
    return client.register(spec, pool_bytes_per_worker=4 << 20)
"""


@pytest.fixture(scope="module")
def host_driver(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("driver")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "libcuda.so.1", HERE / "host_cuda_driver.c"], check=True)
    return folder


@pytest.fixture
def run(host_driver, cluster):
    """run(code): with `client`, of the tests' cluster."""

    def ran(code, path=host_driver):
        program = f"{PREPARED}\nwith kvgrid.connect({cluster.endpoint!r}, timeout=5) as client:\n" + "".join(f"    {line}\n" for line in code.splitlines())
        program += "assert (driver.host_cuda_allocations(), driver.host_cuda_events(), driver.host_cuda_pushed()) == (0, 0, 0)\n"
        environment = {**os.environ, "LD_LIBRARY_PATH": f"{path}:{os.environ.get('LD_LIBRARY_PATH', '')}", "PYTHONPATH": f"{HERE}:{os.environ.get('PYTHONPATH', '')}"}
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr

    return ran


def test_steps_give_what_they_give_on_the_cpu(run):
    run("""
model = opened(client)
with model.open() as cpu, model.open() as gpu:
    for tokens in (70, 1, 5):
        layers = [drawn(tokens) for _ in range(2)]
        with client.step([(cpu, tokens)]) as step:
            expected = [step.layer(layer, *tensors) for layer, tensors in enumerate(layers)]
        with client.step([(gpu, tokens)]) as step:
            for layer, tensors in enumerate(layers):
                out = torch.full((tokens, 4, 32), torch.nan)
                assert step.layer(layer, *on_gpu(tensors), out=OnAnotherDevice(out), stream=5)
                assert torch.allclose(out, expected[layer], atol=1e-6, rtol=0)  # pages lie on other workers
    assert all((a == b).all() for a, b in zip(cpu.read_kv(1, 0, 76), gpu.read_kv(1, 0, 76)))
    with client.step([(gpu, 3)], kind="write") as step:
        for layer in range(2):
            assert step.layer(layer, None, *on_gpu(drawn(3)[1:])) is None
    with client.step([(gpu, 3)], kind="iterate") as step:
        for layer in range(2):
            step.layer(layer, k=OnAnotherDevice(drawn(3)[1]), v=OnAnotherDevice(drawn(3)[2]))
        out = torch.full((3, 4, 32), torch.nan)
        step.layer(1, OnAnotherDevice(drawn(3)[0]), out=OnAnotherDevice(out))
        assert not out.isnan().any()
    assert gpu.length == 82
""")


def test_what_is_refused_has_changed_nothing(run):
    run("""
model = opened(client)
q, k, v = on_gpu(drawn(2))
out = OnAnotherDevice(torch.zeros(2, 4, 32))
with model.open() as sequence:
    with client.step([(sequence, 2)]) as step:
        for arguments, message in [
            (dict(q=q, k=drawn(2)[1], v=v, out=out), "k is not in a GPU's memory"),
            (dict(q=drawn(2)[0], k=k, v=v), "k is not in the CPU's memory"),
            (dict(q=q, k=k, v=v), "out is missing"),
            (dict(q=q, k=k, out=out), "v of layer 0 has 0 bytes"),
            (dict(q=q, out=out), "k of layer 0 has 0 bytes"),
            (dict(k=k, v=v), "q of layer 0 has 0 bytes"),
            (dict(q=q, k=k, v=v, out=out, stream="mine"), "stream is a str"),
            (dict(q=q, k=k, v=v, out=out, stream=13), "cuMemcpyAsync"),
            (dict(q=q, k=OnAnotherDevice(torch.zeros(2, 2, 64)[:, :, ::2]), v=v, out=out), "k is not contiguous"),
        ]:
            with pytest.raises(kvgrid.Error, match=message):
                step.layer(0, **arguments)
        with pytest.raises(kvgrid.DeadlineExceeded, match="stream of GPU 0 was not done"):
            step.layer(0, q, k, v, out, stream=7)
        for layer in range(2):
            step.layer(layer, q, k, v, out)
    assert sequence.length == 2
for _ in range(2):
    with pytest.raises(kvgrid.Unsupported, match="worker keeps its pages in the host's memory"):
        model.gpu_tensors(4)
with pytest.raises(kvgrid.Unsupported, match="no GPU 1: cuDeviceGet: CUDA_ERROR_INVALID_DEVICE"):
    model.gpu_tensors(4, gpu=1)
with pytest.raises(kvgrid.InvalidArgument, match="tokens must be at least 1"):
    model.gpu_tensors(0)
""")
