"""Every source is built: the CMake files list sources by name, each one exists, and none is forgotten."""

import fnmatch
import pathlib
import posixpath
import re

from checks.tree import FOLDERS, Finding

SOURCE = re.compile(r'[^\s()"]+\.(?:cpp|cu|cc)(?![\w.])')
SUFFIXES = (".cpp", ".cu", ".cc")


def listed_sources(tree, cmake_path):
    """(line, path relative to the root) of each source named in a CMake file; what only CMake knows is '*'."""
    folder = str(pathlib.PurePosixPath(cmake_path).parent)
    for number, line in enumerate(tree.lines(cmake_path), 1):
        for word in SOURCE.findall(line.split("#")[0]):
            word = re.sub(r"\$\{(PROJECT|CMAKE)_SOURCE_DIR\}/", "/", word)
            word = re.sub(r"\$\{CMAKE_CURRENT_(SOURCE|LIST)_DIR\}/", "", word)
            word = re.sub(r"\$\{[^}]*\}|\$<[^>]*>", "*", word)
            yield number, posixpath.normpath(word.lstrip("/") if word.startswith("/") else posixpath.join(folder, word))


def check_sources(tree):
    sources = [path for path in tree.paths if path.endswith(SUFFIXES) and path.split("/")[0] in FOLDERS]
    existing = set(sources)
    listed = set()
    for cmake_path in tree.paths:
        if pathlib.PurePosixPath(cmake_path).name != "CMakeLists.txt" and not cmake_path.endswith(".cmake"):
            continue
        for number, source in listed_sources(tree, cmake_path):
            listed.add(source)
            if "*" not in source and source not in existing:
                yield Finding(cmake_path, number, f"lists {source}, which does not exist", "add the file to git or take it off the list")
    patterns = [source for source in listed if "*" in source]
    for path in sources:
        if path not in listed and not any(fnmatch.fnmatch(path, pattern) for pattern in patterns):
            yield Finding(path, 1, "is in no CMakeLists.txt, so nothing builds it", "list it in its folder's CMakeLists.txt")
