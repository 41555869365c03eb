"""What the rules look at: the files that git has or would take, and what they found there."""

import dataclasses
import functools
import pathlib
import subprocess

CPP_SUFFIXES = (".h", ".cpp", ".cu", ".cuh")
CODE_SUFFIXES = CPP_SUFFIXES + (".py", ".sh", ".cmake", ".proto")
FOLDERS = ("core", "kernels", "comm", "worker", "coordinator", "client", "analysis", "tests")


@dataclasses.dataclass(frozen=True, order=True)
class Finding:
    path: str
    line: int
    what: str
    do: str  # what to do about it
    fails: bool = True  # False: a note

    def __str__(self):
        return f"{self.path}:{self.line}: {'' if self.fails else 'note: '}{self.what}; {self.do}"


class Tree:
    """A source tree. `paths` are relative to its root, sorted."""

    def __init__(self, root, paths=None):
        self.root = pathlib.Path(root).resolve()
        self.paths = sorted(paths if paths is not None else _git_paths(self.root))

    @functools.lru_cache(maxsize=None)
    def text(self, path):
        """The file's text; empty if it is binary."""
        data = (self.root / path).read_bytes()
        return "" if b"\0" in data else data.decode("utf-8", errors="replace")

    def lines(self, path):
        return self.text(path).splitlines()

    def cpp_paths(self):
        return [path for path in self.paths if path.endswith(CPP_SUFFIXES)]

    def is_code(self, path):
        if path.endswith(CODE_SUFFIXES) or pathlib.PurePath(path).name == "CMakeLists.txt":
            return True
        return "." not in pathlib.PurePath(path).name and self.text(path).startswith("#!")


def _git_paths(root):
    listed = subprocess.run(
        ["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True, capture_output=True, text=True).stdout
    return {path for path in listed.split("\0") if path and (root / path).is_file()}
