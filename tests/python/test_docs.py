"""docs/python.md can be pasted line by line: its Python blocks are run one after the other, as one program."""

import pathlib
import re
import subprocess
import sys

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "python.md"


def test_the_tutorial_runs(tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```$", DOCS.read_text(), re.M | re.S)
    assert len(blocks) >= 4
    program = tmp_path / "tutorial.py"
    program.write_text("\n".join(blocks))
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
