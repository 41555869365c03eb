"""A file is one idea: a note where the second one may hide, a failure where it surely does."""

import pathlib

from checks.tree import CPP_SUFFIXES, Finding

NOTE_LINES = 400
FAIL_LINES = 600


def check_lengths(tree):
    for path in tree.paths:
        counted = path.endswith(CPP_SUFFIXES + (".py", ".sh"))
        if not counted and not ("." not in pathlib.PurePath(path).name and tree.is_code(path)):
            continue
        count = len(tree.lines(path))
        if count > FAIL_LINES:
            yield Finding(path, count, f"{count} lines, at most {FAIL_LINES}", "move its second idea into a file of its own")
        elif count > NOTE_LINES:
            yield Finding(path, count, f"{count} lines", f"look for a second idea; {FAIL_LINES} is the end", fails=False)
