"""What is installed: the wheel works in a fresh environment with nothing else in it, is typed, and imports neither torch nor numpy."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import venv

import pytest

import kvgrid

WHEEL = os.environ.get("KVGRID_WHEEL")  # set by ./dev
STEP = """
import array, kvgrid, sys
assert kvgrid.__file__.startswith(sys.prefix)
with kvgrid.local(workers=2, memory="16MiB") as cluster, cluster.connect() as client:
    model = client.register(kvgrid.ModelSpec(layers=1, query_heads=2, kv_heads=1, head_dim=32, dtype="f32"))
    q, k = (memoryview(array.array("f", [1.0] * heads * 32)).cast("B").cast("f", (1, heads, 32)) for heads in (2, 1))
    with model.open() as sequence:
        with client.step([(sequence, 1)]) as step:
            o = step.layer(0, q, k, k)
        assert sequence.length == 1
    assert memoryview(o).tolist() == memoryview(q).tolist()
assert not {"numpy", "torch"} & set(sys.modules)
"""


@pytest.mark.skipif(not WHEEL, reason="KVGRID_WHEEL names no wheel")
def test_the_wheel_alone_runs_a_cluster(tmp_path):
    venv.create(tmp_path, with_pip=True)
    python = tmp_path / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", WHEEL], check=True)
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    subprocess.run([python, "-c", STEP], check=True, cwd=tmp_path, env=environment)
    said = subprocess.run([tmp_path / "bin" / "kvgrid", "--version"], check=True, capture_output=True, text=True, env=environment)
    assert said.stdout.strip() == f"kvgrid {kvgrid.__version__}"


def test_the_version_is_that_of_the_programs():
    header = pathlib.Path(__file__).parents[2] / "core" / "version.h"
    assert kvgrid.__version__ == re.search(r'"([0-9.]+)"', header.read_text())[1]


def test_the_package_is_typed():
    folder = pathlib.Path(kvgrid.__file__).parent
    assert (folder / "py.typed").exists() and "class Step" in (folder / "_native.pyi").read_text()


def test_importing_it_imports_no_framework():
    program = "import sys, kvgrid, kvgrid.aio; sys.exit(bool({'numpy', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_the_extension_exports_one_name():
    """Others that are loaded later would be bound to its copies of what they bring themselves."""
    if not shutil.which("nm"):
        pytest.skip("nm is not installed")
    said = subprocess.run(["nm", "-D", "--defined-only", kvgrid._native.__file__], check=True, capture_output=True, text=True).stdout
    assert [line.split()[-1] for line in said.splitlines()] == ["PyInit__native"]


@pytest.mark.parametrize("order", ["kvgrid, torch", "torch, kvgrid", "kvgrid, numpy, torch"])
def test_it_can_be_imported_before_and_after_torch(order):
    subprocess.run([sys.executable, "-c", f"import {order}; print(torch.ones(1), kvgrid.ModelSpec)"], check=True, timeout=120)
