"""Dependencies between folders point downwards only, and includes are written from the repository's root."""

import re

from checks.tree import FOLDERS, Finding

# What the files under a path may include. The longest path that fits counts.
MAY_INCLUDE = {
    "core": {"core"},
    "kernels": {"core", "kernels"},
    "comm": {"core", "comm"},
    "analysis": {"core", "analysis"},
    "worker": {"core", "kernels", "comm", "worker"},
    "coordinator": {"core", "comm", "coordinator"},
    "client": {"core", "comm", "client"},
    "client/kvgrid.h": {"core"},  # installed: nothing of the transport in it
    "client/cli": {"core", "kernels", "comm", "analysis", "client"},
    "client/examples": {"core", "client"},
    "tests": set(FOLDERS),
}
INCLUDE = re.compile(r'\s*#\s*include\s+"([^"]+)"')


def may_include(path):
    """(the row's path, the folders) for a file; None where no row fits."""
    rows = [row for row in MAY_INCLUDE if path == row or path.startswith(row + "/")]
    if not rows:
        return None
    row = max(rows, key=len)
    return row, MAY_INCLUDE[row]


def check_includes(tree):
    for path in tree.cpp_paths():
        row = may_include(path)
        if row is None:
            continue
        for number, line in enumerate(tree.lines(path), 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            included = match[1]
            folder = included.split("/")[0]
            if folder not in FOLDERS:
                if "/" in included:
                    continue  # a library's own, as "hwy/highway.h"
                yield Finding(path, number, f'"{included}" does not say where it is', "write the path from the repository's root")
            elif folder not in row[1]:
                yield Finding(path, number, f"{row[0]} may not include {folder} (it may: {', '.join(sorted(row[1]))})",
                              "move what both need downwards, or let them meet in comm/wire")
