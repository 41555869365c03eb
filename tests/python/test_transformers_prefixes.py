"""A prompt that several requests share is computed once: later caches begin with a fork of a sequence that was kept, by content, within a
tenant. What comes out is what a model computes that starts from nothing."""

import subprocess
import sys

import pytest
import torch
from tiny_models import draw_ids, generate, logits_of, tiny_model

import kvgrid

PROMPT = draw_ids(1, 150, seed=1)


def asked(seed):
    return torch.cat([PROMPT, draw_ids(1, 10, seed)], dim=1)


@pytest.fixture(params=["llama", "gemma3"])
def model(request):
    made = tiny_model(request.param)
    made.family = request.param
    return made


def test_a_shared_prompt_is_computed_once(attach):
    model = tiny_model("llama")
    own = [generate(model, asked(seed)) for seed in (2, 3)]
    attached = attach(model, "llama")
    first = attached.cache(asked(2))
    assert first.get_seq_length() == 0
    assert torch.equal(generate(model, asked(2), first), own[0])
    first.keep()
    first.close()
    second = attached.cache(asked(3))
    assert second.get_seq_length() == 150

    assert torch.equal(generate(model, asked(3), second), own[1])


def test_pages_of_a_shared_prompt_are_there_once(attach):
    attached = attach(tiny_model("llama"), "llama")
    model = attached.model
    with attached.cache() as cache:
        attached.prefill(cache, torch.cat([PROMPT[:, :128], PROMPT[:, :1]], dim=1))
        cache.keep()
    caches = [attached.cache(asked(seed)) for seed in range(4)]
    for seed, cache in enumerate(caches):
        logits_of(model, asked(seed)[:, 128:], cache)
    mine = [of for worker in attached.client.occupancy().workers for of in worker.models if of.model == attached.grid_model.id]

    # K/V heads and layers: 128 common tokens are two pages of each stream, and each cache has one page of its own.
    assert sum(of.used_pages for of in mine) == 2 * 4 * (2 + 4)


def test_a_cache_begins_where_what_was_kept_differs(model, attach):
    """What has left a window cannot be seen again: a shorter sequence that was kept beside the longer one serves then."""
    own = generate(model, asked(3))
    attached = attach(model, model.family)
    with attached.cache() as cache:
        generate(model, asked(2), cache, max_new_tokens=60)
        cache.keep()
    with attached.cache() as cache:
        attached.prefill(cache, asked(2)[:, :141])
        cache.keep()
        cache.keep()
    slides = model.family == "gemma3"
    cache = attached.cache(asked(3))
    assert (cache.get_seq_length(), len(attached.prefixes)) == ((140, 2) if slides else (150, 1))

    assert torch.equal(generate(model, asked(3), cache), own)


def test_the_last_token_is_always_computed(attach):
    model = tiny_model("llama")
    attached = attach(model, "llama")
    cache = attached.cache()
    found = generate(model, PROMPT, cache)
    cache.keep()
    again = attached.cache(PROMPT[0].tolist())
    assert again.get_seq_length() == 149

    assert torch.equal(generate(model, PROMPT, again), found)


def test_tenants_do_not_see_one_anothers(attach):
    attached = attach(tiny_model("llama"), "llama")
    cache = attached.cache(tenant="a")
    logits_of(attached.model, PROMPT, cache)
    cache.keep()
    kept = {each.tenant for each in attached.client.sequences(attached.grid_model)}

    assert kept == {"a"}
    assert attached.cache(PROMPT, tenant="b").get_seq_length() == 0
    assert attached.cache(PROMPT, tenant="a").get_seq_length() == 149


def test_what_was_not_used_for_longest_goes_first(attach):
    attached = attach(tiny_model("llama"), "llama", prefixes_max=2)
    prompts = [draw_ids(1, 20, seed) for seed in (1, 2, 3)]
    for prompt in prompts:
        with attached.cache() as cache:
            logits_of(attached.model, prompt, cache)
            cache.keep()
        attached.cache(prompts[0]).close()

    assert [attached.cache(prompt).get_seq_length() for prompt in prompts] == [19, 0, 19]


def test_tokens_that_came_as_embeddings_are_not_shared(attach):
    attached = attach(tiny_model("llama"), "llama")
    cache = attached.cache()
    embeddings = attached.model.get_input_embeddings()(PROMPT).detach()
    logits_of(attached.model, None, cache, inputs_embeds=embeddings)
    cache.keep()

    assert cache.lengths == [150] and len(attached.prefixes) == 0


def test_a_conversation_rendered_anew_goes_on_where_it_differs(attach):
    model = tiny_model("llama")
    own = generate(model, asked(4))
    cache = attach(model, "llama").cache()
    generate(model, asked(2), cache)
    assert cache.match(asked(4)) == 150

    assert torch.equal(generate(model, asked(4), cache), own)
    with pytest.raises(kvgrid.InvalidArgument, match="must have one"):
        cache.match(draw_ids(2, 3))


OTHER_PROCESS = """
import sys
sys.path.insert(0, sys.argv[1])
import kvgrid.transformers
import torch
from test_transformers_prefixes import asked
from tiny_models import generate, tiny_model

with kvgrid.connect(sys.argv[2]) as client, kvgrid.transformers.attach(tiny_model("llama"), client, name="llama") as attached:
    with attached.cache(asked(3)) as cache:
        print(cache.get_seq_length(), *generate(attached.model, asked(3), cache)[0].tolist())
"""


def test_another_process_begins_with_what_this_one_keeps(attach, model_grid):
    own = generate(tiny_model("llama"), asked(3))
    attached = attach(tiny_model("llama"), "llama")
    with attached.cache() as cache:
        generate(attached.model, asked(2), cache)
        cache.keep()
    folder = __file__.rpartition("/")[0]
    done = subprocess.run([sys.executable, "-c", OTHER_PROCESS, folder, model_grid.endpoint], capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr
    length, *tokens = map(int, done.stdout.split())
    assert (length, tokens) == (128, own[0].tolist())


def test_what_the_cluster_keeps_outlives_the_attachment(model, attach):
    """Windows: what the cluster keeps has all that its pages' next token sees, or is not kept."""
    own = generate(model, asked(3))
    attached = attach(model, model.family)
    with attached.cache() as cache:
        attached.prefill(cache, asked(2)[:, :131])
        cache.keep()
    attached.detach()
    again = attach(model, model.family)
    with again.cache(asked(3)) as cache:
        assert cache.get_seq_length() == 128

        assert torch.equal(generate(model, asked(3), cache), own)


def test_another_model_of_the_same_name_does_not_find_it(attach):
    attached = attach(tiny_model("llama"), "llama")
    with attached.cache() as cache:
        logits_of(attached.model, PROMPT, cache)
        cache.keep()
    attached.detach()
    other = tiny_model("llama")
    with torch.no_grad():
        other.model.layers[0].self_attn.k_proj.weight.mul_(1.01)

    assert attach(other, "llama").cache(PROMPT).get_seq_length() == 0
    assert attach(tiny_model("llama"), "llama").cache(PROMPT).get_seq_length() == 128
