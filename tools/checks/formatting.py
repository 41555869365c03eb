"""C++ is in the form of .clang-format, as clang-format 14 sees it. Other versions differ in details: they give notes only."""

import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

from checks.tree import Finding

VERSION = 14
BATCH_FILES = 16
COMPLAINT = re.compile(r"(?P<path>.+?):(?P<line>\d+):\d+: (?:error|warning): code should be clang-formatted")


def find_clang_format():
    """(program, major version); (None, 0) if there is none."""
    for name in (f"clang-format-{VERSION}", "clang-format"):
        program = shutil.which(name)
        if program:
            said = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
            version = re.search(r"version (\d+)", said)
            if version:
                return program, int(version[1])
    return None, 0


def unformatted(tree, program, jobs):
    """{path: first line that differs}"""
    paths = tree.cpp_paths()
    batches = [paths[i:i + BATCH_FILES] for i in range(0, len(paths), BATCH_FILES)]

    def complaints(batch):
        said = subprocess.run([program, "--dry-run", "-Werror", *batch], cwd=tree.root, capture_output=True, text=True)
        found = [COMPLAINT.match(line) for line in said.stderr.splitlines()]
        found = [(match["path"], int(match["line"])) for match in found if match]
        if said.returncode and not found:
            raise RuntimeError(f"{program} failed: {said.stderr}")
        return found

    first_lines = {}
    with ThreadPoolExecutor(jobs) as workers:
        for found in workers.map(complaints, batches):
            for path, line in found:
                first_lines.setdefault(path, line)
    return first_lines


def check_format(tree, jobs):
    program, version = find_clang_format()
    if not program:
        yield Finding(".clang-format", 1, "clang-format is not installed, so the form was not checked", "run ./dev setup", fails=False)
        return
    for path, line in unformatted(tree, program, jobs).items():
        about = "" if version == VERSION else f" (by clang-format {version}; {VERSION} decides)"
        yield Finding(path, line, "is not in the project's form" + about, "run ./dev format", fails=version == VERSION)
