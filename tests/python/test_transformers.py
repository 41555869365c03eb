"""A model with its cache in the grid says what it says with its own: the same tokens, greedy, sampled and by beams, whatever way the prompt
came in; logits within a tolerance of the same model in fp64 (tiny_models.py). Each test ends with every page of the grid free (conftest.py)."""

import copy

import pytest
import torch
from tiny_models import FAMILIES, WINDOW, assert_close_to_exact, draw_ids, exact_logits, generate, logits_of, ragged, tiny_model


@pytest.fixture(params=FAMILIES)
def model(request):
    made = tiny_model(request.param)
    made.family = request.param
    return made


def test_greedy_tokens_are_those_of_the_models_own_cache(model, attach):
    ids = draw_ids(1, 30)
    own = generate(model, ids, max_new_tokens=60)
    attached = attach(model, model.family)
    cache = attached.cache()

    assert torch.equal(generate(model, ids, cache, max_new_tokens=60), own)
    assert cache.lengths == [89] and cache.get_seq_length() == 89


def test_a_window_that_is_not_obeyed_would_change_the_tokens():
    """What the other tests rest on: the families with a window notice it."""
    ids = draw_ids(1, 30)
    narrow, wide = (generate(tiny_model("mistral", sliding_window=window), ids) for window in (WINDOW, 500))
    capped, uncapped = (generate(tiny_model("gemma2", attn_logit_softcapping=cap), ids) for cap in (2.0, None))
    assert not torch.equal(narrow, wide) and not torch.equal(capped, uncapped)


def test_logits_of_a_prefill_and_of_single_tokens(model, attach):
    ids = draw_ids(1, 70)
    exact, own_error = exact_logits(model, ids)
    cache = attach(model, model.family).cache()
    parts = [logits_of(model, ids[:, begin:end], cache) for begin, end in [(0, 50), (50, 60), *((at, at + 1) for at in range(60, 70))]]

    assert_close_to_exact(torch.cat(parts, dim=1), exact, own_error)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_logits_in_narrow_dtypes(dtype, attach):
    model = tiny_model("llama", dtype)
    ids = draw_ids(2, 40)
    exact, own_error = exact_logits(model, ids)
    cache = attach(model, f"llama-{dtype}").cache()

    assert_close_to_exact(torch.cat([logits_of(model, part, cache) for part in ids.split(20, dim=1)], dim=1), exact, own_error)


def test_a_ragged_batch_has_no_padding_in_the_grid(model, attach):
    ids, mask = ragged([30, 7, 19])
    own = generate(model, ids, attention_mask=mask)
    cache = attach(model, model.family).cache()

    assert torch.equal(generate(model, ids, cache, attention_mask=mask), own)
    assert cache.lengths == [69, 46, 58] == [sequence.length for sequence in cache.sequences]


def test_a_prompt_in_chunks(model, attach):
    ids, mask = ragged([50, 23])
    own = generate(model, ids, attention_mask=mask)
    attached = attach(model, model.family)
    cache = attached.cache()
    attached.prefill(cache, ids, attention_mask=mask, chunk_tokens=16)
    assert cache.lengths == [49, 22]

    assert torch.equal(generate(model, ids, cache, attention_mask=mask), own)


def test_generate_may_cut_the_prompt_itself(model, attach):
    ids = draw_ids(1, 50)
    own = generate(model, ids)
    cache = attach(model, model.family).cache()
    assert torch.equal(generate(model, ids, cache, prefill_chunk_size=16), own)


def test_a_conversation_goes_on_with_the_same_cache(model, attach):
    said = [draw_ids(1, 12, seed) for seed in (1, 2, 3)]
    own = said[0][:, :0]
    for words in said:
        own = generate(model, torch.cat([own, words], dim=1), max_new_tokens=15)
    cache = attach(model, model.family).cache()
    found = said[0][:, :0]
    for words in said:
        found = generate(model, torch.cat([found, words], dim=1), cache, max_new_tokens=15)

    assert torch.equal(found, own)


def test_a_ragged_conversation_goes_on(attach):
    model = tiny_model("llama")
    ids, mask = ragged([20, 9])
    cache = attach(model, "llama").cache()
    first = generate(model, ids, cache, attention_mask=mask, max_new_tokens=10)
    more, more_mask = ragged([4, 8], seed=5)
    ids = torch.cat([first, more], dim=1)
    mask = torch.cat([mask, torch.ones(2, 10, dtype=torch.long), more_mask], dim=1)
    found = generate(model, ids, cache, attention_mask=mask, max_new_tokens=10)
    model.set_attn_implementation("eager")

    assert torch.equal(found, generate(model, ids, attention_mask=mask, max_new_tokens=10))


def test_sampling_with_a_seed(model, attach):
    ids = draw_ids(1, 20)
    wish = {"do_sample": True, "temperature": 0.9, "top_k": 30, "num_return_sequences": 3}
    torch.manual_seed(5)
    own = generate(model, ids, **wish)
    cache = attach(model, model.family).cache()
    torch.manual_seed(5)

    assert torch.equal(generate(model, ids, cache, **wish), own)


def test_beams_are_forks(model, attach):
    ids, mask = ragged([25, 11])
    own = generate(model, ids, attention_mask=mask, num_beams=3)
    cache = attach(model, model.family).cache()

    assert torch.equal(generate(model, ids, cache, attention_mask=mask, num_beams=3), own)


def test_rows_are_repeated_selected_and_copied(attach):
    model = tiny_model("llama")
    ids = draw_ids(2, 30)
    cache = attach(model, "llama").cache()
    logits_of(model, ids, cache)
    branch = copy.deepcopy(cache)
    branch.batch_repeat_interleave(2)
    branch.batch_select_indices(torch.tensor([3, 0, 1]))
    rows = ids[[1, 0, 0]]
    more = draw_ids(3, 5, seed=9)
    exact, own_error = exact_logits(model, torch.cat([rows, more], dim=1))

    assert_close_to_exact(logits_of(model, more, branch), exact[:, 30:], own_error)
    assert (cache.lengths, branch.lengths) == ([30, 30], [35, 35, 35])


def test_a_cropped_cache_goes_on_from_there(attach):
    model = tiny_model("llama")
    ids, mask = ragged([30, 12])
    cache = attach(model, "llama").cache()
    found = generate(model, ids, cache, attention_mask=mask, max_new_tokens=11)
    cache.crop(-15)
    assert cache.lengths == [25, 7]
    assert torch.equal(generate(model, ids, cache, attention_mask=mask, max_new_tokens=11), found)


def test_a_cache_that_was_reset_takes_another_batch(attach):
    model = tiny_model("llama")
    cache = attach(model, "llama").cache()
    logits_of(model, draw_ids(3, 10), cache)
    cache.reset()
    logits_of(model, draw_ids(1, 5), cache)
    assert cache.lengths == [5]


def test_two_models_in_turn_and_two_caches_of_one(attach):
    llama, qwen = tiny_model("llama"), tiny_model("qwen3")
    ids = draw_ids(1, 20)
    own = [generate(model, ids) for model in (llama, qwen)]
    caches = [attach(model, name).cache() for model, name in ((llama, "llama"), (qwen, "qwen3"))]
    found = [generate(model, ids, cache) for model, cache in zip((llama, qwen), caches, strict=True)]
    again = generate(llama, ids, caches[0].attachment.cache())

    assert torch.equal(found[0], own[0]) and torch.equal(found[1], own[1]) and torch.equal(again, own[0])


def test_threads_run_one_model_with_caches_of_their_own(attach):
    import concurrent.futures

    model = tiny_model("llama")
    prompts = [draw_ids(1, 20, seed) for seed in range(4)]
    own = [generate(model, ids) for ids in prompts]
    attached = attach(model, "llama")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda ids: generate(model, ids, attached.cache()), prompts))

    assert all(torch.equal(*pair) for pair in zip(found, own, strict=True))
