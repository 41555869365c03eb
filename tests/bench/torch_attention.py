#!/usr/bin/env python3
"""PyTorch's attention and multiplication beside kvgrid's, on the same shapes, threads and machine, in turn.

    python tests/bench/torch_attention.py [--bin build/release/bin] [--threads N] [--rounds N]

Needs PyTorch; the build and the tests do not. PyTorch gets contiguous K and V, whichever of its ways is fastest (grouped heads, heads that
were repeated beforehand, a group's heads as rows of one head), and for chunks no mask, which spares it work. Best of all rounds.
"""

import argparse
import json
import os
import pathlib
import subprocess
import time

import torch
import torch.nn.functional as F

DECODES = [  # dtype, query heads, KV heads, head_dim, tokens
    ("bf16", 32, 8, 128, 65536),
    ("f32", 32, 8, 128, 65536),
    ("bf16", 9, 3, 64, 262144),
    ("bf16", 16, 4, 256, 65536),
]
PREFILLS = [("f32", 32, 8, 128, 10240, 2048), ("bf16", 32, 8, 128, 10240, 2048)]  # and new tokens
DTYPES = {"bf16": torch.bfloat16, "f32": torch.float32}


def best_seconds(work, least_seconds=0.3):
    best, end = float("inf"), time.perf_counter() + least_seconds
    while True:
        start = time.perf_counter()
        work()
        now = time.perf_counter()
        best = min(best, now - start)
        if now > end:
            return best


def ways(dtype, query_heads, kv_heads, head_dim, length, new):
    """Name -> a call of scaled_dot_product_attention that attends to everything."""
    group = query_heads // kv_heads
    q = torch.randn(1, query_heads, new, head_dim, dtype=DTYPES[dtype])
    k = torch.randn(1, kv_heads, length, head_dim, dtype=DTYPES[dtype])
    v = torch.randn(1, kv_heads, length, head_dim, dtype=DTYPES[dtype])
    rows = q.reshape(1, kv_heads, group * new, head_dim)
    repeated_k, repeated_v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    return {
        "grouped": lambda: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
        "repeated": lambda: F.scaled_dot_product_attention(q, repeated_k, repeated_v),
        "as rows": lambda: F.scaled_dot_product_attention(rows, k, v),
    }


def products(dtype, query_heads, kv_heads, head_dim, length):
    """The two products for 256 tokens of all heads, as prefill_bench has them."""
    q = torch.randn(kv_heads, 256 * query_heads // kv_heads, head_dim, dtype=DTYPES[dtype])
    k = torch.randn(kv_heads, head_dim, length, dtype=DTYPES[dtype])
    v = torch.randn(kv_heads, length, head_dim, dtype=DTYPES[dtype])
    scores = torch.matmul(q, k)
    flops = 4 * q.shape[0] * q.shape[1] * head_dim * length
    return flops, lambda: (torch.matmul(q, k), torch.matmul(scores, v))


def ours(bin_dir, program, name, threads):
    """The counters of one benchmark of ours."""
    environment = dict(os.environ, KVGRID_THREADS=str(threads))
    command = [bin_dir / program, f"--benchmark_filter=^{name}(/|$)", "--benchmark_format=json"]
    report = json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    (row,) = report["benchmarks"]
    return row


def keep_best(best, name, value):
    best[name] = max(best.get(name, 0), value)


def compare_decode(options, dtype, query_heads, kv_heads, head_dim, length):
    kv_bytes = 2 * kv_heads * length * head_dim * DTYPES[dtype].itemsize
    name = f"decode/{dtype}/heads:{query_heads}x{kv_heads}/d:{head_dim}/new:1/on:{length}/pages:filled"
    calls = ways(dtype, query_heads, kv_heads, head_dim, length, 1)
    best = {}
    for _ in range(options.rounds):
        row = ours(options.bin, "decode_bench", name, options.threads)
        keep_best(best, "kvgrid", row["GB/s"])
        keep_best(best, "plain reading", row["read_GB/s"])
        for way, call in calls.items():
            keep_best(best, f"torch {way}", kv_bytes / best_seconds(call) / 1e9)
    show(name, "GB/s of K and V", best)


def compare_prefill(options, dtype, query_heads, kv_heads, head_dim, length, new):
    name = f"prefill/{dtype}/heads:{query_heads}x{kv_heads}/d:{head_dim}/new:{new}/on:{length}/pages:filled"
    calls = ways(dtype, query_heads, kv_heads, head_dim, length, new)
    del calls["as rows"]  # holds for one new token only, where causality masks nothing
    attention_flops = 4 * query_heads * new * length * head_dim
    matmul_flops, matmul = products(dtype, query_heads, kv_heads, head_dim, length)
    best = {}
    for _ in range(options.rounds):
        row = ours(options.bin, "prefill_bench", name, options.threads)
        keep_best(best, "kvgrid", row["GFLOP/s"])
        keep_best(best, "OpenBLAS sgemm", row["sgemm_GFLOP/s"])
        keep_best(best, "torch.matmul", matmul_flops / best_seconds(matmul) / 1e9)
        for way, call in calls.items():
            keep_best(best, f"torch {way}", attention_flops / best_seconds(call) / 1e9)
    show(name, "GFLOP/s", best)


def show(name, unit, best):
    print(f"{name}  [{unit}]")
    for what, value in best.items():
        print(f"    {what:16} {value:8.1f}   kvgrid is {best['kvgrid'] / value:.2f} of it", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, default=pathlib.Path("build/release/bin"))
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"PyTorch {torch.__version__}, {options.threads} threads, {torch.backends.cpu.get_cpu_capability()}")
    with torch.inference_mode():
        for case in DECODES:
            compare_decode(options, *case)
        for case in PREFILLS:
            compare_prefill(options, *case)


if __name__ == "__main__":
    main()
