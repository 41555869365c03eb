#!/usr/bin/env python3
"""Public kernels on the work of gpu_decode_bench and gpu_prefill_bench, on one GPU: medians of CUDA graph replays, random numbers.

FlashInfer works on pages of 64 tokens in random order, as kvgrid does; PyTorch on contiguous K and V, where lengths are equal. "fp8": K and V
in e4m3, q and o in bf16; FlashInfer's scales are 1. Each row names the fastest form of each. Without FlashInfer only PyTorch is measured. Give
the path of a benchmark to print its rows of the same run first. --compile lets FlashInfer compile all that the rows use, several at once.
"""
import argparse
import random
import subprocess
import sys
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

try:
    import flashinfer
except ImportError:
    flashinfer = None

DEVICE, PAGE, DTYPE, FP8 = "cuda:0", 64, torch.bfloat16, torch.float8_e4m3fn

# name, lengths, query heads, KV heads, head size, calls in one graph
RAGGED = random.Random(3)
CASES = [
    ("1 x 131072", [131072], 32, 8, 128, 1),
    ("1 x 1048576", [1048576], 32, 8, 128, 1),
    ("8 x 131072", [131072] * 8, 32, 8, 128, 1),
    ("64 x 8192", [8192] * 64, 32, 8, 128, 1),
    ("1 x 16384", [16384], 32, 8, 128, 20),
    ("1 x 4096", [4096], 32, 8, 128, 50),
    ("1 x 1024", [1024], 32, 8, 128, 50),
    ("8 x 1024", [1024] * 8, 32, 8, 128, 50),
    ("64 x 512", [512] * 64, 32, 8, 128, 20),
    ("524288 and 63 x 512", [524288] + [512] * 63, 32, 8, 128, 1),
    ("64 of 1 to 32768", [RAGGED.randint(1, 32768) for _ in range(64)], 32, 8, 128, 1),
    ("8 x 131072, 64/8", [131072] * 8, 64, 8, 128, 1),
    ("8 x 131072, 28/4", [131072] * 8, 28, 4, 128, 1),
    ("8 x 65536, 16/16, d 64", [65536] * 8, 16, 16, 64, 1),
]
FP8_CASES = [("fp8, " + case[0], *case[1:]) for case in CASES if "28/4" not in case[0]]

# name, new tokens, lengths, query heads, KV heads, head size
CHUNKS = [
    ("2048 new of 131072", 2048, [131072], 32, 8, 128),
    ("512 new of 131072", 512, [131072], 32, 8, 128),
    ("8192 of 8192", 8192, [8192], 32, 8, 128),
    ("32768 of 32768", 32768, [32768], 32, 8, 128),
    ("2048 new of 131072, 64/8", 2048, [131072], 64, 8, 128),
    ("2048 new of 131072, d 64", 2048, [131072], 32, 8, 64),
    ("2048 of 131072, 16/4, d 256", 2048, [131072], 16, 4, 256),
    ("8192 of 8192, d 64", 8192, [8192], 32, 8, 64),
    ("8192 of 8192, 16/4, d 256", 8192, [8192], 16, 4, 256),
    ("128 new of 16384", 128, [16384], 32, 8, 128),
    ("128 new of 131072", 128, [131072], 32, 8, 128),
    ("512 new of 131072, 8/1", 512, [131072], 8, 1, 128),
    ("8 x 64 new of 8192 to 65536", 64, [8192 * n for n in range(1, 9)], 32, 8, 128),
    ("8 x 64 new, 32 decodes", [1] * 32 + [64] * 8, [8192] * 32 + [8192 * n for n in range(1, 9)], 32, 8, 128),
]


def median_us(call, calls, rested=False):
    """After 0.1 s of such work; rested: in the first milliseconds after a rest, before the GPU comes to its power limit."""
    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            call()
    torch.cuda.synchronize()
    time.sleep(0.5 if rested else 0)
    times, warm_up_us = [], 3e3 if rested else 1e5  # an idle GPU takes its time to reach its clocks
    while len(times) < (10 if rested else 30):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        us = start.elapsed_time(end) * 1e3
        if warm_up_us <= 0:
            times.append(us / calls)
        warm_up_us -= us
    return sorted(times)[len(times) // 2]


class Pages:
    """K and V as [page, 2, kv_heads, PAGE, dim], every page of every sequence at a random place."""

    def __init__(self, lengths, kv_heads, dim, dtype):
        counts = [(n + PAGE - 1) // PAGE for n in lengths]
        self.data = torch.empty(sum(counts), 2, kv_heads, PAGE, dim, device=DEVICE, dtype=DTYPE).normal_().to(dtype)
        self.indices = torch.randperm(sum(counts), device=DEVICE, dtype=torch.int32)
        self.starts = torch.tensor([0, *torch.tensor(counts).cumsum(0)], dtype=torch.int32, device=DEVICE)
        self.last_page_len = torch.tensor([(n - 1) % PAGE + 1 for n in lengths], dtype=torch.int32, device=DEVICE)
        self.lengths = torch.tensor(lengths, dtype=torch.int32, device=DEVICE)
        self.table = torch.zeros(len(lengths), max(counts), dtype=torch.int32, device=DEVICE)
        at = 0
        for row, count in enumerate(counts):
            self.table[row, :count] = self.indices[at : at + count]
            at += count


def flashinfer_forms(lengths, q_heads, kv_heads, dim, q, out, kv_dtype):
    workspace = torch.zeros(256 << 20, dtype=torch.uint8, device=DEVICE)
    pages, batch = Pages(lengths, kv_heads, dim, kv_dtype), len(lengths)

    def tensor_cores():
        w = flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace, "HND", use_tensor_cores=True, backend="fa2")
        w.plan(pages.starts, pages.indices, pages.last_page_len, q_heads, kv_heads, dim, PAGE, q_data_type=DTYPE, kv_data_type=kv_dtype)
        return lambda: w.run(q, pages.data, out=out)

    def xqa():
        counters = torch.zeros(256 << 20, dtype=torch.uint8, device=DEVICE)
        return lambda: flashinfer.decode.xqa_batch_decode_with_kv_cache(
            q, pages.data, counters, pages.table, pages.lengths, max(lengths), bmm1_scale=dim**-0.5, out=out, kv_layout="HND")

    def persistent():
        w = flashinfer.BatchAttention(kv_layout="HND")
        one_each = torch.arange(batch + 1, dtype=torch.int32, device=DEVICE)
        w.plan(one_each, pages.starts, pages.indices, pages.lengths, q_heads, kv_heads, dim, dim, PAGE, causal=True, q_data_type=DTYPE,
               kv_data_type=kv_dtype)
        lse = torch.empty(batch, q_heads, device=DEVICE)
        return lambda: w.run(q, pages.data, out=out, lse=lse)

    return {"flashinfer tensor cores": tensor_cores, "flashinfer xqa": xqa, "flashinfer persistent": persistent}


def pytorch_forms(lengths, kv_heads, dim, q):
    def form(backend):
        k = torch.randn(len(lengths), kv_heads, lengths[0], dim, device=DEVICE, dtype=DTYPE)
        v, query = torch.randn_like(k), q[:, :, None]

        def call():
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(query, k, v, enable_gqa=True)
        return call

    return {"pytorch flash": lambda: form(SDPBackend.FLASH_ATTENTION), "pytorch cudnn": lambda: form(SDPBackend.CUDNN_ATTENTION)}


def flashinfer_chunk_forms(new, lengths, q_heads, kv_heads, dim, q, out):
    """`new`: of each sequence."""
    pages = Pages(lengths, kv_heads, dim, DTYPE)
    starts = torch.tensor([0, *torch.tensor(new).cumsum(0)], dtype=torch.int32, device=DEVICE)

    def persistent():
        w = flashinfer.BatchAttention(kv_layout="HND")
        w.plan(starts, pages.starts, pages.indices, pages.lengths, q_heads, kv_heads, dim, dim, PAGE, causal=True, q_data_type=DTYPE,
               kv_data_type=DTYPE)
        lse = torch.empty(sum(new), q_heads, device=DEVICE)
        return lambda: w.run(q, pages.data, out=out, lse=lse)

    def form(backend):
        workspace = torch.zeros(512 << 20, dtype=torch.uint8, device=DEVICE)
        w = flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace, "HND", backend=backend)
        w.plan(starts, pages.starts, pages.indices, pages.last_page_len, q_heads, kv_heads, dim, PAGE, causal=True, q_data_type=DTYPE,
               kv_data_type=DTYPE)
        return lambda: w.run(q, pages.data, out=out)

    forms = {"flashinfer fa2": lambda: form("fa2"), "flashinfer fa3": lambda: form("fa3")}
    return forms | ({"flashinfer persistent": persistent} if len(lengths) > 1 else {})


def pytorch_chunk_forms(length, kv_heads, dim, q):
    def form(backend):
        k = torch.randn(1, kv_heads, length, dim, device=DEVICE, dtype=DTYPE)
        v, query = torch.randn_like(k), q.transpose(0, 1)[None].contiguous()

        def call():
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(query, k, v, is_causal=True, enable_gqa=True)
        return call

    return {"pytorch flash": lambda: form(SDPBackend.FLASH_ATTENTION), "pytorch cudnn": lambda: form(SDPBackend.CUDNN_ATTENTION)}


def report(name, forms, calls, speed, has_rested):
    for label, make in forms.items():
        try:
            call = make()
            us = median_us(call, calls)
            rested = f"  rested {speed(median_us(call, calls, rested=True)).split()[0]}" if has_rested else ""
            print(f"{name:28s} {us:9.1f} us  {speed(us)}{rested}  {label}", flush=True)
        except Exception as error:
            print(f"{name:28s} {label} failed: {(str(error).strip().splitlines() or [repr(error)])[0][:100]}", flush=True)
        torch.cuda.empty_cache()


def measure_chunks(name, new, lengths, q_heads, kv_heads, dim):
    new = [new] * len(lengths) if isinstance(new, int) else new
    q = torch.randn(sum(new), q_heads, dim, device=DEVICE, dtype=DTYPE)
    forms = flashinfer_chunk_forms(new, lengths, q_heads, kv_heads, dim, q, torch.empty_like(q)) if flashinfer else {}
    if lengths == new:
        forms |= pytorch_chunk_forms(lengths[0], kv_heads, dim, q)
    # Those of chunks, as gpu_prefill_bench counts.
    flops = 4 * q_heads * dim * sum(m * (n - m) + m * (m + 1) // 2 for m, n in zip(new, lengths) if m > 1)
    report(name, forms, 1, lambda us: f"{flops / us / 1e6:6.1f} TFLOP/s", has_rested=True)


def measure(name, lengths, q_heads, kv_heads, dim, calls, kv_dtype=DTYPE):
    q = torch.randn(len(lengths), q_heads, dim, device=DEVICE, dtype=DTYPE)
    out = torch.empty_like(q)
    forms = flashinfer_forms(lengths, q_heads, kv_heads, dim, q, out, kv_dtype) if flashinfer else {}
    if len(set(lengths)) == 1 and kv_dtype == DTYPE:
        forms |= pytorch_forms(lengths, kv_heads, dim, q)
    moved = 2 * kv_dtype.itemsize * sum(lengths) * kv_heads * dim
    report(name, forms, calls, lambda us: f"{moved / us / 1e6:6.3f} TB/s", has_rested=False)


def cases_to_compile():
    """(is chunk, case) of those that differ in what FlashInfer compiles for, with short sequences."""
    found = {}
    for case in [(*case, DTYPE) for case in CASES] + [(*case, FP8) for case in FP8_CASES]:
        found[False, *case[2:5], case[6]] = (case[0], [256] * 4, *case[2:5], 1, case[6])
    for case in CHUNKS:
        found[True, *case[3:]] = (case[0], 64, [256] * 4, *case[3:])
    return [(key[0], case) for key, case in found.items()]


def compile_one(index):
    is_chunk, case = cases_to_compile()[index]
    (measure_chunks if is_chunk else measure)(*case)


def compile_all():
    """One process for each, since a process compiles one thing after another."""
    processes = [subprocess.Popen([sys.executable, __file__, "--compile-one", str(index)], stdout=subprocess.DEVNULL)
                 for index in range(len(cases_to_compile()))]
    for process in processes:
        process.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bench", help="path of gpu_decode_bench, or with --chunks of gpu_prefill_bench")
    parser.add_argument("--chunks", action="store_true", help="prefill instead of decode")
    parser.add_argument("--only", default="", help="part of a case's name")
    parser.add_argument("--compile", action="store_true", help="measure nothing")
    parser.add_argument("--compile-one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.compile:
        compile_all()
        sys.exit()
    if options.compile_one is not None:
        compile_one(options.compile_one)
        sys.exit()
    if options.bench:
        subprocess.run([options.bench, *([options.only] if options.only else [])], check=True)
    torch.manual_seed(3)
    print(torch.cuda.get_device_name(), "PyTorch", torch.__version__, "FlashInfer", flashinfer.__version__ if flashinfer else "not there")
    decodes = CASES + [(*case, FP8) for case in FP8_CASES]
    for case in CHUNKS if options.chunks else decodes:
        if options.only in case[0]:
            (measure_chunks if options.chunks else measure)(*case)
