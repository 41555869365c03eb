"""Every header compiles alone, twice in a row.

What was found good is remembered by content: a header is compiled again when it, a header of the project that it includes, the flags
or the compiler has changed.
"""

import hashlib
import json
import pathlib
import re
import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor

from checks.tree import FOLDERS, Finding

MEMORY_FILE = "headers-that-compile.json"

# Headers of the Python extension compile with the flags of the wheel's build, which lies beside the others where `./dev python` made it.
PYTHON_FOLDER = "client/python/"
PYTHON_BUILD = "wheel"
PYTHON_NEEDS = "nanobind/nanobind.h"


def exempt(path):
    """Highway's files are included once per instruction set, by a file that has prepared for them."""
    return path.endswith("-inl.h")


def compiler_and_flags(build):
    """The compiler, and the include paths of all sources together, as the build has them."""
    entries = json.loads((pathlib.Path(build) / "compile_commands.json").read_text())
    compiler, flags = None, []
    for entry in entries:
        words = shlex.split(entry["command"])
        while pathlib.PurePath(words[0]).name in ("env", "ccache") or "=" in words[0]:
            words = words[1:]
        compiler = compiler or words[0]
        for index, word in enumerate(words):
            if word == "-isystem":
                flag = (word, words[index + 1])
            elif word.startswith("-I"):
                flag = (word,)
            else:
                continue
            if flag not in flags:
                flags.append(flag)
    return compiler, [word for flag in flags for word in flag]


def python_flags(build):
    """The include paths of the Python extension; none where it was not built, or with a nanobind that is gone since."""
    try:
        flags = compiler_and_flags(pathlib.Path(build).parent / PYTHON_BUILD)[1]
    except FileNotFoundError:
        return []
    return flags if any((pathlib.Path(flag.removeprefix("-I")) / PYTHON_NEEDS).exists() for flag in flags) else []


def compile_alone(tree, header, command):
    """(first complaint as (path, line, what) or None, the files that the header is made of)"""
    twice = f'#include "{header}"\n' * 2
    done = subprocess.run([*command, "-fsyntax-only", "-x", "c++", "-MMD", "-MF", "/dev/stdout", "-"], cwd=tree.root, input=twice,
                          capture_output=True, text=True)
    if done.returncode:
        match = re.search(r"^([^\s:]+):(\d+):(?:\d+:)? (?:fatal )?error: (.*)$", done.stderr, re.M)
        if not match:
            return (header, 1, done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "the compiler failed"), []
        return (header, int(match[2]) if match[1].endswith(header) else 1,
                f"does not compile alone: {match[1]}:{match[2]}: {match[3]}"), []
    rule = done.stdout.replace("\\\n", " ").split(":", 1)[-1]
    return None, [word for word in rule.split() if word != "-"]


def content_hash(tree, files, command):
    digest = hashlib.sha256(" ".join(command).encode())
    for name in sorted(files):
        path = tree.root / name  # stays as it is where `name` is absolute
        digest.update(name.encode() + b"\0" + (path.read_bytes() if path.is_file() else b"gone") + b"\0")
    return digest.hexdigest()


def check_headers(tree, build, jobs):
    headers = [path for path in tree.paths if path.endswith(".h") and path.split("/")[0] in FOLDERS and not exempt(path)]
    try:
        compiler, flags = compiler_and_flags(build)
    except FileNotFoundError:
        yield Finding("CMakeLists.txt", 1, f"{build} is not configured, so headers were not compiled", "run ./dev build")
        return
    plain = [compiler, "-std=c++20", f"-I{tree.root}", *flags]
    of_python = python_flags(build)
    if not of_python and any(header.startswith(PYTHON_FOLDER) for header in headers):
        yield Finding(PYTHON_FOLDER, 1, "its headers were not compiled, for lack of nanobind", "run ./dev python", fails=False)
        headers = [header for header in headers if not header.startswith(PYTHON_FOLDER)]

    def command(header):
        return [*plain, *of_python] if header.startswith(PYTHON_FOLDER) else plain

    version = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout.splitlines()[:1]
    memory_path = pathlib.Path(build) / MEMORY_FILE
    try:
        memory = json.loads(memory_path.read_text())
    except (FileNotFoundError, ValueError):
        memory = {}

    def unchanged(header):
        known = memory.get(header)
        return known and known["hash"] == content_hash(tree, known["files"], command(header) + version)

    changed = [header for header in headers if not unchanged(header)]
    kept = {header: memory[header] for header in headers if header not in set(changed)}
    with ThreadPoolExecutor(jobs) as workers:
        for header, (complaint, files) in zip(changed, workers.map(lambda h: compile_alone(tree, h, command(h)), changed)):
            if complaint:
                yield Finding(*complaint, "include what it uses, or end its name with -inl.h if it is Highway's")
            else:
                kept[header] = {"files": files, "hash": content_hash(tree, files, command(header) + version)}
    memory_path.write_text(json.dumps(kept))
