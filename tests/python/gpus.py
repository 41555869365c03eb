"""Whether this process and the package's workers can use a GPU."""

import pathlib
import subprocess

import pytest
import torch

import kvgrid


def _workers_can():
    worker = pathlib.Path(kvgrid.__file__).parent / "bin" / "kvgrid-worker"
    return "gpu" in subprocess.run([worker, "--list-devices"], capture_output=True, text=True).stdout


needs_gpu = pytest.mark.skipif(not (torch.cuda.is_available() and _workers_can()), reason="no GPU here, or the wheel's workers were built without CUDA")
