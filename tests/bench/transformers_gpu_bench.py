#!/usr/bin/env python3
"""Time per token of a model of Llama 3.1 8B's shape on one GPU, with its KV cache in the grid through CUDA IPC, beside its own cache.

    python tests/bench/transformers_gpu_bench.py [--contexts 8192 32768 130816] [--tokens 32] [--chunk 2048] [--layers 32]

Weights are random, drawn so that the model does not magnify rounding more than a trained one (embeddings of variance 1, what goes back into the
residual stream by 1 / sqrt(2 layers)) and that attention at long contexts still says something (q and k twice as wide). The own cache is DynamicCache with scaled_dot_product_attention, the grid one worker in another process on the same GPU. At each context
the own cache decodes some tokens greedily; the grid is given the same ones, and says each time which would be next: the tokens are equal if all of
these are. Where they differ, the margin is how far apart the two likeliest logits are, beside how far apart the two caches' logits are there. How
far the own cache's logits are from themselves with transformers' eager attention is measured at the first context.

    token    wall time of a forward of one token, until its logits are there; medians
    layers   of it in Step.layer, all layers, with what the stream had still to do
    prefill  seconds from the context before, in chunks
"""

import argparse
import gc
import statistics
import time


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contexts", type=int, nargs="+", default=[8192, 32768, 130816])
    parser.add_argument("--tokens", type=int, default=32, help="decoded at each context (%(default)s)")
    parser.add_argument("--chunk", type=int, default=2048, help="tokens of a forward of the prefill (%(default)s)")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--dtype", choices=["bfloat16", "float16"], default="bfloat16")
    parser.add_argument("--no-eager", action="store_true", help="without the comparison with eager attention")
    return parser.parse_args()


def make_model(layers, dtype):
    import torch
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=layers, num_attention_heads=32, num_key_value_heads=8,
        max_position_embeddings=131072, rms_norm_eps=1e-5, rope_theta=500000.0,
        rope_scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
    )
    torch.manual_seed(1)
    with torch.device("cuda"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).eval()
    with torch.no_grad():
        model.model.embed_tokens.weight.normal_()
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight.mul_(2)
            layer.self_attn.k_proj.weight.mul_(2)
            layer.self_attn.o_proj.weight.div_((2 * layers) ** 0.5)
            layer.mlp.down_proj.weight.div_((2 * layers) ** 0.5)
    return model


class Side:
    """One of the two caches: grows, decodes, is cut back."""

    def __init__(self, model, cache, crop, chunk):
        from kvgrid.transformers.versions import CACHE_ARGUMENT

        self.model, self.cache, self.crop, self.chunk = model, cache, crop, chunk
        self.argument = CACHE_ARGUMENT

    def forward(self, ids, **named):
        return self.model(ids, use_cache=True, logits_to_keep=1, **{self.argument: self.cache}, **named).logits[0, -1]

    def grow(self, ids, context):
        """(seconds, the last logits)"""
        import torch

        begin = time.perf_counter()
        for at in range(self.cache.get_seq_length(), context, self.chunk):
            logits = self.forward(ids[:, at : min(at + self.chunk, context)])
        torch.cuda.synchronize()
        return time.perf_counter() - begin, logits

    def decode(self, logits, tokens, given=None):
        """Greedy, or along `given` tokens: (seconds of each token, logits [tokens, vocabulary] that chose each). The cache is cut back."""
        import torch

        seconds, seen = [], [logits.float()]
        for place in range(tokens):
            token = seen[-1].argmax() if given is None else given[place]
            begin = time.perf_counter()
            logits = self.forward(token.view(1, 1))
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - begin)
            seen.append(logits.float())
        self.crop(self.cache, -tokens)
        return seconds, torch.stack(seen)


def measure_own(model, ids, options):
    import torch
    from transformers.cache_utils import DynamicCache

    side = Side(model, DynamicCache(config=model.config), DynamicCache.crop, options.chunk)
    found = []
    for context in options.contexts:
        prefill, logits = side.grow(ids, context)
        seconds, seen = side.decode(logits, options.tokens)
        found.append((prefill, seconds, seen.cpu(), torch.cuda.max_memory_allocated()))
    return found


def measure_eager(model, ids, options, chosen):
    """Logits of the first context."""
    from transformers.cache_utils import DynamicCache

    model.set_attn_implementation("eager")
    side = Side(model, DynamicCache(config=model.config), DynamicCache.crop, 512)
    _, logits = side.grow(ids, options.contexts[0])
    _, seen = side.decode(logits, options.tokens, chosen)
    model.set_attn_implementation("sdpa")
    return seen.cpu()


def measure_grid(model, ids, options, chosen):
    import kvgrid
    import kvgrid.transformers

    inside = []
    layer = kvgrid.Step.layer

    def timed(*arguments, **named):
        begin = time.perf_counter()
        result = layer(*arguments, **named)
        inside[-1] += time.perf_counter() - begin
        return result

    bytes_of_kv = (max(options.contexts) + options.tokens + 4096) * options.layers * 2 * 8 * 128 * 2
    found = []
    with kvgrid.local(workers=1, memory=f"{(bytes_of_kv >> 20) + 512}MiB", device="gpu", timeout=120) as cluster:
        attached = kvgrid.transformers.attach(model, cluster.connect(timeout=120), name="llama-8b-shape")
        side = Side(model, attached.cache(), kvgrid.transformers.GridCache.crop, options.chunk)
        kvgrid.Step.layer = timed
        whole = side.forward
        for context, tokens in zip(options.contexts, chosen, strict=True):
            side.forward = whole
            inside.append(0.0)
            prefill, logits = side.grow(ids, context)
            side.forward = lambda *arguments, **named: (inside.append(0.0), whole(*arguments, **named))[1]
            seconds, seen = side.decode(logits, options.tokens, tokens)
            found.append((prefill, seconds, seen.cpu(), inside[-options.tokens :]))
        kvgrid.Step.layer = layer
        occupancy = attached.client.occupancy().workers[0].models[0]
        print(f"pages in use at the end: {occupancy.used_pages} of {occupancy.page_bytes} bytes")
        attached.detach()
    return found


def compare(own, grid, tokens):
    """(equal choices, of how many, largest distance of logits, margins and distances where they differ)"""
    differing = [place for place in range(tokens + 1) if own[place].argmax() != grid[place].argmax()]
    margins = []
    for place in differing:
        first, second = own[place].topk(2).values
        margins.append(f"{float(first - second):.4f} ({float((own[place] - grid[place]).abs().max()):.4f})")
    return tokens + 1 - len(differing), tokens + 1, float((own - grid).abs().max()), margins


def main():
    options = parse_arguments()
    import torch
    import transformers

    print(f"{torch.cuda.get_device_name()}; torch {torch.__version__}, transformers {transformers.__version__}; {options.layers} layers, {options.dtype}, chunks of {options.chunk}")
    with torch.inference_mode():
        model = make_model(options.layers, options.dtype)
        ids = torch.randint(0, 128256, (1, max(options.contexts)), device="cuda", generator=torch.Generator("cuda").manual_seed(2))
        own = measure_own(model, ids, options)
        gc.collect()
        torch.cuda.empty_cache()
        chosen = [seen[:-1].argmax(dim=-1).cuda() for _, _, seen, _ in own]
        eager = None if options.no_eager else measure_eager(model, ids, options, chosen[0])
        gc.collect()
        torch.cuda.empty_cache()
        grid = measure_grid(model, ids, options, chosen)
    print(f"{'context':>8} | {'own: prefill s':>14} {'token ms':>8} | {'grid: prefill s':>15} {'token ms':>8} {'layers ms':>9} | own / grid | tokens equal, logits apart")
    for context, mine, theirs in zip(options.contexts, own, grid, strict=True):
        token, grid_token = (1e3 * statistics.median(seconds[3:]) for seconds in (mine[1], theirs[1]))
        layers = 1e3 * statistics.median(theirs[3][3:])
        equal, count, apart, margins = compare(mine[2], theirs[2], options.tokens)
        print(f"{context:>8} | {mine[0]:>14.2f} {token:>8.2f} | {theirs[0]:>15.2f} {grid_token:>8.2f} {layers:>9.2f} | {token / grid_token:>10.2f} | "
              f"{equal} of {count}, {apart:.4f} of {float(mine[2].abs().max()):.2f}{', margins (apart there) ' + ', '.join(margins) if margins else ''}")
    if eager is not None:
        equal, count, apart, _ = compare(own[0][2], eager, options.tokens)
        print(f"eager attention against scaled_dot_product_attention, own cache at {options.contexts[0]}: {equal} of {count} tokens equal, logits {apart:.4f} apart")
    print(f"own cache: {own[-1][3] / 2**30:.1f} GiB of GPU memory at most, the model's included")


if __name__ == "__main__":
    main()
