#!/usr/bin/env python3
"""Time per token of SmolLM2-135M with its KV cache in the grid, beside its own cache, and where the difference goes.

    build/python/bin/python tests/bench/transformers_bench.py [--contexts 1024 4096 8000] [--workers 2] [--threads 1] [--torch-threads 2]

Both caches grow to each context in chunks, decode some tokens there, and are cut back. Times are medians over the tokens, in milliseconds. The
workers share the cores with torch, as a grid on one host does.

    grid: begin, commit   Client.step and Step.commit, of the whole token
    grid: layers          Step.layer, all layers
    grid: conversions     what is around them: checks, views and copies of q, k, v and o, token ids
    own: update, attend   DynamicCache.update, which copies the context, and scaled_dot_product_attention
    the rest              the model's matrices: all else of the forward
"""

import argparse
import contextlib
import os
import pathlib
import platform
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "client" / "examples"))

TEXT = "/usr/share/common-licenses/GPL-3"


class Stopwatch:
    """Adds up the time inside wrapped functions, by name, within one token."""

    def __init__(self):
        self.milliseconds = {}

    def wrapped(self, name, function):
        def timed(*arguments, **named):
            begin = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self.milliseconds[name] = self.milliseconds.get(name, 0.0) + 1e3 * (time.perf_counter() - begin)

        return timed

    def take(self):
        taken, self.milliseconds = self.milliseconds, {}
        return taken


@contextlib.contextmanager
def patched(stopwatch, places):
    """places: (object, attribute, name)"""
    before = [(place, attribute, getattr(place, attribute)) for place, attribute, _ in places]
    for place, attribute, name in places:
        setattr(place, attribute, stopwatch.wrapped(name, getattr(place, attribute)))
    yield
    for place, attribute, function in before:
        setattr(place, attribute, function)


class Side:
    """One of the two caches: grows, decodes, is cut back."""

    def __init__(self, model, cache, crop, chunk):
        from kvgrid.transformers.versions import CACHE_ARGUMENT

        self.model, self.cache, self.crop, self.chunk = model, cache, crop, chunk
        self.argument = CACHE_ARGUMENT

    def forward(self, ids):
        import torch

        with torch.inference_mode():
            return self.model(ids, use_cache=True, **{self.argument: self.cache}).logits[0, -1]

    def grow(self, ids, context):
        """Seconds."""
        begin = time.perf_counter()
        for at in range(self.cache.get_seq_length(), context, self.chunk):
            self.model.base_model(ids[:, at : min(at + self.chunk, context)], use_cache=True, **{self.argument: self.cache})
        return time.perf_counter() - begin

    def decode(self, ids, context, tokens, stopwatch):
        """Median of each part, in ms, and the last logits. The first tokens warm up."""
        parts = []
        for at in range(context, context + tokens):
            stopwatch.take()
            begin = time.perf_counter()
            logits = self.forward(ids[:, at : at + 1])
            parts.append({"token": 1e3 * (time.perf_counter() - begin), **stopwatch.take()})
        self.crop(self.cache, -tokens)
        parts = parts[min(3, tokens // 2) :]
        return {name: statistics.median(part.get(name, 0.0) for part in parts) for name in parts[-1]}, logits


def measure_own(model, ids, options):
    import torch
    from transformers.cache_utils import DynamicCache
    from transformers.integrations import sdpa_attention
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    stopwatch = Stopwatch()
    ALL_ATTENTION_FUNCTIONS.register("timed", stopwatch.wrapped("attend", sdpa_attention.sdpa_attention_forward))
    ALL_MASK_ATTENTION_FUNCTIONS.register("timed", sdpa_mask)
    model.set_attn_implementation("timed")
    side = Side(model, DynamicCache(config=model.config), DynamicCache.crop, options.chunk)
    with torch.inference_mode(), patched(stopwatch, [(DynamicCache, "update", "update")]):
        found = [(side.grow(ids, context), *side.decode(ids, context, options.tokens, stopwatch)) for context in options.contexts]
    model.set_attn_implementation("sdpa")
    return found


def measure_grid(model, ids, options):
    import torch

    import kvgrid
    import kvgrid.transformers
    from kvgrid.transformers import attention
    from kvgrid.transformers.batch_step import BatchStep

    stopwatch = Stopwatch()
    places = [
        (kvgrid.Client, "step", "begin"),
        (kvgrid.Step, "layer", "layers"),
        (kvgrid.Step, "commit", "commit"),
        (BatchStep, "commit", "whole commit"),
        (attention, "attend", "whole attention"),
    ]
    with kvgrid.local(workers=options.workers, threads=options.threads, memory="1GiB") as cluster, patched(stopwatch, places), torch.inference_mode():
        attached = kvgrid.transformers.attach(model, cluster.connect(), name="smollm2-135m")
        side = Side(model, attached.cache(), kvgrid.transformers.GridCache.crop, options.chunk)
        found = [(side.grow(ids, context), *side.decode(ids, context, options.tokens, stopwatch)) for context in options.contexts]
        attached.detach()
    for _, parts, _ in found:
        parts["conversions"] = parts["whole attention"] + parts["whole commit"] - parts["begin"] - parts["layers"] - parts["commit"]
    return found


def processor():
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        return next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())


def show(options, own, grid):
    row = "{:>8} {:>6} | {:>10} {:>8} | {:>8} {:>8} {:>8} {:>12} | {:>8} {:>8} | {:>9}"
    print(row.format("context", "cache", "prefill s", "ms/token", "begin", "layers", "commit", "conversions", "update", "attend", "the rest"))
    for place, context in enumerate(options.contexts):
        for name, (seconds, parts, _) in (("own", own[place]), ("grid", grid[place])):
            inner = ["begin", "layers", "commit", "conversions", "update", "attend"]
            rest = parts["token"] - sum(parts.get(part, 0.0) for part in inner)
            shown = [f"{parts[part]:.2f}" if part in parts else "" for part in inner]
            print(row.format(context, name, f"{seconds:.1f}", f"{parts['token']:.1f}", *shown, f"{rest:.1f}"))
        apart = float((own[place][2] - grid[place][2]).abs().max())
        print(f"{'':>8} logits of the last token differ by {apart:.1e} at most")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contexts", type=int, nargs="+", default=[1024, 4096, 8000])
    parser.add_argument("--tokens", type=int, default=40, help="decoded at each context (%(default)s)")
    parser.add_argument("--chunk", type=int, default=512, help="tokens of a forward of the prefill (%(default)s)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of each worker (%(default)s)")
    parser.add_argument("--torch-threads", type=int, default=2)
    options = parser.parse_args()
    import smollm2
    import torch
    import transformers

    torch.set_num_threads(options.torch_threads)
    tokenizer, model = smollm2.load()
    length = max(options.contexts) + options.tokens
    with open(TEXT, encoding="utf-8") as file:
        once = tokenizer(file.read(), return_tensors="pt").input_ids
    ids = once.repeat(1, -(-length // once.shape[1]))[:, :length]
    print(f"{processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; torch {torch.__version__}, {options.torch_threads} threads; transformers {transformers.__version__}")
    print(f"SmolLM2-135M in f32; {options.workers} workers of {options.threads} threads; prefill in chunks of {options.chunk}; ms, medians of one token")
    show(options, measure_own(model, ids, options), measure_grid(model, ids, options))


if __name__ == "__main__":
    main()
