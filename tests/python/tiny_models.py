"""Small random models of each family, and the same model in fp64 to compare with.

Weights are drawn ten times wider than transformers would, so that attention is sharp and a wrong key changes the tokens.

Tolerance of logits. A model in f32 errs from itself in fp64 by what its roundings add up to, in attention as elsewhere: that error is measured,
on the same input. The grid replaces one rounding of attention by another of the same size (growing_context.py), so its logits may err from fp64
by the same amount; ERROR_FACTOR allows for the luck of either.
"""

import copy

import torch
import transformers

from kvgrid.transformers.versions import CACHE_ARGUMENT

torch.set_num_threads(1)  # matrices are too small for more, and the workers want the other cores

ERROR_FACTOR = 4
VOCABULARY = 97
WINDOW = 20

_GEOMETRY = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}

_FAMILIES = {
    "llama": ("Llama", {}),
    "qwen3": ("Qwen3", {}),
    "mistral": ("Mistral", {"sliding_window": WINDOW}),
    "gemma2": ("Gemma2", {"sliding_window": WINDOW, "query_pre_attn_scalar": 16, "attn_logit_softcapping": 2.0}),
    "gemma3": ("Gemma3", {"sliding_window": WINDOW, "query_pre_attn_scalar": 16,
                          "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]}),
}

FAMILIES = list(_FAMILIES)


def tiny_model(family, dtype=torch.float32, **changed):
    """A model of fixed weights for each family. Its own attention is the eager one: sdpa leaves soft caps out."""
    kind, fields = _FAMILIES[family]
    config = getattr(transformers, f"{kind}TextConfig" if family == "gemma3" else f"{kind}Config")(**{**_GEOMETRY, **fields, **changed})
    torch.manual_seed(11)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval().to(dtype)
    model.set_attn_implementation("eager")
    model.generation_config.update(do_sample=False, max_new_tokens=40, pad_token_id=0)
    return model


def draw_ids(rows, columns, seed=3):
    return torch.randint(2, VOCABULARY, (rows, columns), generator=torch.Generator().manual_seed(seed))


def ragged(lengths, seed=3):
    """Left-padded rows: (token_ids, attention_mask)."""
    columns = max(lengths)
    ids = draw_ids(len(lengths), columns, seed)
    mask = torch.stack([(torch.arange(columns) >= columns - length).long() for length in lengths])
    return ids * mask, mask


def generate(model, ids, cache=None, **named):
    if cache is not None:
        named[CACHE_ARGUMENT] = cache
    return model.generate(ids, **{"attention_mask": torch.ones_like(ids), **named})


@torch.no_grad()
def logits_of(model, ids, cache=None, **named):
    """[rows, columns, vocabulary] of one forward."""
    if cache is not None:
        named[CACHE_ARGUMENT] = cache
    return model(ids, use_cache=cache is not None, **named).logits


def exact_logits(model, ids, **named):
    """The same in fp64, recomputed from the first token on, and the largest error that the model itself makes."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    own = logits_of(model, ids, **named)
    model.set_attn_implementation(before)
    exact_model = copy_without_hooks(model).double()
    exact = logits_of(exact_model, ids, **named)
    return exact, float((own - exact).abs().max())


def copy_without_hooks(model):
    exact = type(model)(copy.deepcopy(model.config)).eval()
    exact.load_state_dict(model.state_dict())
    exact.set_attn_implementation("eager")
    return exact


def assert_close_to_exact(found, exact, own_error):
    assert float((found - exact).abs().max()) <= ERROR_FACTOR * own_error
