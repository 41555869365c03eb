"""docs/python.md can be pasted line by line: its Python blocks are run one after the other, as one program; those that need a GPU where there is one."""

import pathlib
import re
import subprocess
import sys

from gpus import needs_gpu

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "python.md"


def blocks(needs_gpu):
    found = re.findall(r"^```python\n(.*?)^```$", DOCS.read_text(), re.M | re.S)
    return [block for block in found if block.startswith("# needs a GPU\n") is needs_gpu]


def run(program, lines):
    program.write_text("\n".join(lines))
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_tutorial_runs(tmp_path):
    assert len(blocks(False)) >= 4
    run(tmp_path / "tutorial.py", blocks(False))


@needs_gpu
def test_its_part_for_gpus_runs(tmp_path):
    assert len(blocks(True)) == 1
    run(tmp_path / "tutorial.py", blocks(True))
