"""SmolLM2-135M-Instruct with its cache on four workers: the tokens of its own cache, and at every step the logits of a full recomputation."""

import pytest
import torch
from tiny_models import ERROR_FACTOR, assert_close_to_exact, exact_logits, generate, logits_of

PROMPTS = ["The capital of France is", "Once upon a time, an old lighthouse keeper", "def fibonacci(n):\n"]


@pytest.fixture
def model(smollm2):
    model = smollm2[1]
    before = model.config._attn_implementation
    yield model
    assert model.config._attn_implementation == before


@pytest.fixture
def ids_of(smollm2):
    return lambda text: smollm2[0](text, return_tensors="pt").input_ids


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_tokens(model, ids_of, attach, prompt):
    ids = ids_of(prompt)
    own = generate(model, ids, max_new_tokens=40, do_sample=False)
    cache = attach(model, "smollm2", pool_bytes_per_worker=64 << 20).cache()

    assert torch.equal(generate(model, ids, cache, max_new_tokens=40, do_sample=False), own)
    assert cache.lengths == [own.shape[1] - 1]


def test_a_ragged_batch(model, smollm2, attach):
    tokenizer = smollm2[0]
    tokenizer.padding_side = "left"
    batch = tokenizer(PROMPTS, return_tensors="pt", padding=True)
    wish = {"attention_mask": batch.attention_mask, "max_new_tokens": 20, "do_sample": False}
    own = generate(model, batch.input_ids, **wish)
    cache = attach(model, "smollm2", pool_bytes_per_worker=64 << 20).cache()

    assert torch.equal(generate(model, batch.input_ids, cache, **wish), own)
    assert cache.lengths == [int(row.sum()) + 19 for row in batch.attention_mask]


def test_each_step_equals_a_full_recomputation(model, ids_of, attach):
    """The single-step property: update first, attend second, the token's own position included. A context of more than one page on each
    worker, then token by token, each compared with the model run anew over all tokens, in fp64."""
    with open("/usr/share/common-licenses/GPL-3", encoding="utf-8") as file:
        ids = ids_of(file.read()[:3000])
    context = ids.shape[1] - 12
    assert context > 4 * 64
    exact, own_error = exact_logits(model, ids)
    cache = attach(model, "smollm2", pool_bytes_per_worker=64 << 20).cache()
    prefill = logits_of(model, ids[:, :context], cache)
    steps = torch.cat([logits_of(model, ids[:, at : at + 1], cache) for at in range(context, ids.shape[1])], dim=1)

    assert_close_to_exact(prefill, exact[:, :context], own_error)
    assert_close_to_exact(steps, exact[:, context:], own_error)
    assert ERROR_FACTOR * own_error < 0.01  # of logits that span some 30: the tolerance means something
