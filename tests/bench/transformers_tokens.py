#!/usr/bin/env python3
"""Whether SmolLM2-135M says the same with its KV cache in the grid: ten prompts, 200 tokens each, greedy.

    build/python/bin/python tests/bench/transformers_tokens.py [--workers 4] [--tokens 200]

Ends with 1 if a token differs. The smallest margin is how far apart the two likeliest tokens came anywhere: where it is of the size of
rounding errors, a difference would mean nothing.
"""

import argparse
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "client" / "examples"))

PROMPTS = [
    "The capital of France is",
    "Once upon a time, an old lighthouse keeper",
    "def fibonacci(n):\n",
    "In the beginning God created the heaven and the earth.",
    "The three laws of thermodynamics are",
    "Dear Sir or Madam, I am writing to",
    "A page of memory is",
    "To bake bread one needs flour, water, salt and",
    "1, 1, 2, 3, 5, 8, 13,",
    "She opened the door and saw",
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=200)
    options = parser.parse_args()
    import smollm2
    import torch
    import transformers

    import kvgrid
    import kvgrid.transformers

    torch.set_num_threads(1)
    tokenizer, model = smollm2.load()
    wish = {"max_new_tokens": options.tokens, "do_sample": False, "output_scores": True, "return_dict_in_generate": True}
    prompts = [tokenizer(prompt, return_tensors="pt") for prompt in PROMPTS]
    own = [model.generate(**prompt, **wish) for prompt in prompts]
    print(f"transformers {transformers.__version__}, torch {torch.__version__}; {options.workers} workers")
    different = 0
    with kvgrid.local(workers=options.workers, memory="256MiB") as cluster, kvgrid.transformers.attach(model, cluster, name="smollm2") as attached:
        for text, prompt, expected in zip(PROMPTS, prompts, own, strict=True):
            with attached.cache() as cache:
                found = model.generate(**prompt, **wish, past_key_values=cache)
            same = torch.equal(found.sequences, expected.sequences)
            different += not same
            top = [scores.topk(2).values[0] for scores in expected.scores]
            apart = max(float((a - b).abs().max()) for a, b in zip(found.scores, expected.scores, strict=False))
            print(f"{'same' if same else 'DIFFERENT':9} {len(top):4} tokens, smallest margin {min(float(a - b) for a, b in top):.4f}, "
                  f"logits apart {apart:.1e} at most: {text!r}", flush=True)
    print(f"{len(PROMPTS) - different} of {len(PROMPTS)} the same")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
