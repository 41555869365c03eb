"""What was meant to be temporary or belongs to one machine stays out of the tree."""

import re

from checks.tree import Finding

# Written in pieces, so that this file does not find itself.
LATER = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "X" + "XX"]) + r")\b")
HOME = re.compile(r"(?<![\w.$}/-])/(?:(?:home|Users)/[A-Za-z_]|root/)")


def check_words(tree):
    for path in tree.paths:
        code = tree.is_code(path)
        for number, line in enumerate(tree.lines(path), 1):
            if HOME.search(line):
                yield Finding(path, number, "names somebody's home directory", "use a relative path, $HOME or a parameter")
            later = LATER.search(line) if code else None
            if later:
                yield Finding(path, number, f"says {later[1]}", "do it now, or open an issue and remove the word")
