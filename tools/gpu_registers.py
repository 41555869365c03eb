#!/usr/bin/env python3
"""Registers and spills of the CUDA kernels that are compiled for one shape, as ptxas reports them. Ends with 1 if a kernel spills that may not.

    python3 tools/gpu_registers.py [--build build/release]

Needs nvcc and a configured build, and no GPU. Takes some three minutes of processor time, on all cores.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

SOURCES = re.compile(r"kernels/cuda/(decode|decode_fp8|prefill)_\d+\.cu$")
# Many rows of wide heads: a few registers too many, beside 128 of sums.
MAY_SPILL = {f"{head_dim}, {element}, {rows}, {kv or f'PlainKv<{element}>'}" for element in ("Bf16", "F16") for head_dim, rows, kv in (
    (96, 32, None), (128, 32, None), (128, 32, "Fp8Kv"), (256, 16, "Fp8Kv"))}
OWN_BLOCK = re.compile(r"OwnBlockVariant<DecodeVariantOf<(.*), RingShape\{.*\}>, (true|false)>")
KERNEL = re.compile(r"Compiling entry function '(\S+)'")
SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores")
REGISTERS = re.compile(r"Used (\d+) registers")


def short_name(mangled):
    name = subprocess.run(["c++filt", mangled], capture_output=True, text=True, check=True).stdout.strip()
    name = re.sub(r"\(.*\)$|^void |kvgrid::kernels::", "", name).replace("> >", ">>").replace("> >", ">>").split("(")[0]
    name = OWN_BLOCK.sub(lambda found: f"{found[1]}, {'cluster' if found[2] == 'true' else 'small'}", name)
    return re.sub(r"DecodeVariant<(.*)>>$", r"\1>", name)


def shape_of(name):
    """The head size, dtype, rows and kind of KV of a decode kernel's name, as in MAY_SPILL."""
    inner = name.partition("<")[2][:-1]
    return re.sub(r", (cluster|small)$", "", inner)


def compile_with_report(entry):
    words = [word for word in shlex.split(entry["command"]) if pathlib.PurePath(word).name not in ("ccache", "env")]
    words[words.index("-o") + 1] = "/dev/null"
    done = subprocess.run([*words, "-Xptxas", "-v"], cwd=entry["directory"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{entry['file']}: {done.stderr}")
    return done.stdout + done.stderr


def kernels_of(report):
    """(name, registers, stack bytes, spilled bytes) of each kernel, in the report's order."""
    name = stack = spilled = None
    for line in report.splitlines():
        if match := KERNEL.search(line):
            name = short_name(match[1])
        elif match := SPILLS.search(line):
            stack, spilled = int(match[1]), int(match[2])
        elif (match := REGISTERS.search(line)) and name:
            yield name, int(match[1]), stack, spilled
            name = None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build/release")
    options = parser.parse_args()
    entries = json.loads((pathlib.Path(options.build) / "compile_commands.json").read_text())
    entries = [entry for entry in entries if SOURCES.search(entry["file"])]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        reports = list(pool.map(compile_with_report, entries))
    failed = found = 0
    for entry, report in zip(entries, reports):
        serialised = "C7520" in report or "C7508" in report
        for name, registers, stack, spilled in kernels_of(report):
            found += 1
            fails = serialised or ((stack or spilled) and shape_of(name) not in MAY_SPILL)
            failed += bool(fails)
            print(f"{name:64s} {registers:4d} registers  {stack:4d} bytes of stack  {spilled:4d} spilled{'  FAILS' if fails else ''}", flush=True)
        if serialised:
            print(f"{entry['file']}: ptxas serialises wgmma, or ignores setmaxnreg")
    if not found:
        sys.exit(f"{options.build} has no CUDA kernels")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
