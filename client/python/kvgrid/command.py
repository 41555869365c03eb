"""The `kvgrid` command: the program that comes with the package."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn


def main() -> NoReturn:
    program = Path(__file__).parent / "bin" / "kvgrid"
    os.execv(program, [str(program), *sys.argv[1:]])
