#!/usr/bin/env python3
"""`./dev format`: brings all C++ files into the form of .clang-format. Files that are in it already are not touched."""

import os
import subprocess
import sys

from checks.formatting import VERSION, find_clang_format, unformatted
from checks.tree import Tree


def main():
    tree = Tree(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    program, version = find_clang_format()
    if not program:
        sys.exit("format: clang-format is not installed: run ./dev setup")
    if version != VERSION:
        print(f"format: this is clang-format {version}; ./dev check goes by {VERSION}, which may differ in details", file=sys.stderr)
    changed = sorted(unformatted(tree, program, os.cpu_count()))
    if changed:
        subprocess.run([program, "-i", *changed], cwd=tree.root, check=True)
    for path in changed:
        print(path)
    print(f"format: {len(changed)} of {len(tree.cpp_paths())} files changed")


if __name__ == "__main__":
    main()
