"""What would change the mathematics and is not supported raises, by name, and leaves the cache as it was; so does half an attachment."""

import gc
import pickle

import pytest
import torch
from tiny_models import VOCABULARY, WINDOW, assert_close_to_exact, draw_ids, exact_logits, generate, logits_of, ragged, tiny_model

import kvgrid
import kvgrid.transformers
from kvgrid.transformers.versions import CACHE_ARGUMENT


@pytest.fixture
def llama():
    return tiny_model("llama")


def test_the_attention_without_the_cache(llama, attach):
    attach(llama, "llama")
    ids = draw_ids(1, 5)
    for call in (lambda: generate(llama, ids), lambda: logits_of(llama, ids)):
        with pytest.raises(kvgrid.WrongState, match="in use without its cache"):
            call()


def test_the_cache_without_the_attention(llama, attach):
    attached = attach(llama, "llama")
    cache = attached.cache()
    llama.set_attn_implementation("sdpa")
    with pytest.raises(kvgrid.WrongState, match="in use without its attention"):
        logits_of(llama, draw_ids(1, 5), cache)
    attached.detach()
    with pytest.raises(kvgrid.WrongState, match="in use without its attention"):
        logits_of(llama, draw_ids(1, 5), cache)


def test_a_version_that_calls_the_cache_otherwise(llama, attach, monkeypatch):
    from transformers.cache_utils import Cache

    monkeypatch.setattr(Cache, "get_mask_sizes", lambda self, query, layer_idx, block_table: (0, 0))
    with pytest.raises(kvgrid.Unsupported, match="calls Cache.get_mask_sizes.self, query, layer_idx, block_table"):
        attach(llama, "llama")
    assert llama.config._attn_implementation == "eager"


def test_an_attention_that_was_never_attached(llama):
    from kvgrid.transformers import attention

    attention.register()
    llama.set_attn_implementation("kvgrid")
    with pytest.raises(kvgrid.WrongState, match="is not attached"):
        logits_of(llama, draw_ids(1, 5))


def test_the_cache_of_another_model(llama, attach):
    attach(llama, "llama")
    other = attach(tiny_model("qwen3"), "qwen3").cache()
    with pytest.raises(kvgrid.WrongState, match="belongs to another"):
        logits_of(llama, draw_ids(1, 5), other)


def test_gradients_and_dropout(llama, attach):
    cache = attach(llama, "llama").cache()
    ids = draw_ids(1, 5)
    with pytest.raises(kvgrid.Unsupported, match="gradients"):
        llama(ids, **{CACHE_ARGUMENT: cache})
    llama.train()
    for layer in llama.model.layers:
        layer.self_attn.attention_dropout = 0.1
    with pytest.raises(kvgrid.Unsupported, match="dropout is 0.1"):
        logits_of(llama, ids, cache)
    assert cache.get_seq_length() == 0


def test_masks_that_are_not_of_padding(llama, attach):
    cache = attach(llama, "llama").cache()
    ids, mask = ragged([6, 4])
    with pytest.raises(kvgrid.Unsupported, match="4 dimensions"):
        logits_of(llama, ids, cache, attention_mask=torch.ones(2, 1, 6, 6, dtype=torch.bool))
    logits_of(llama, ids, cache, attention_mask=mask)
    more = draw_ids(2, 1)
    with pytest.raises(kvgrid.Unsupported, match="differs from that of earlier calls"):
        logits_of(llama, more, cache, attention_mask=torch.ones(2, 7))
    with pytest.raises(kvgrid.Unsupported, match="differs from that of earlier calls"):
        logits_of(llama, more, cache)
    with pytest.raises(kvgrid.InvalidArgument, match="attention_mask has shape"):
        logits_of(llama, more, cache, attention_mask=torch.tensor([[1], [0]]))
    assert cache.lengths == [6, 4]


@pytest.mark.parametrize(
    "function",
    [
        lambda row, head, query, key: query >= 0 * key,  # bidirectional
        lambda row, head, query, key: (key <= query) & (query - key < WINDOW - 1),
        lambda row, head, query, key: (key <= query) & (query - key < WINDOW + 1),
        lambda row, head, query, key: (key <= query) & ((query - key < WINDOW) | (key < 4)),  # sinks
        lambda row, head, query, key: (key <= query) & (key // 30 == query // 30),  # documents packed together
        lambda row, head, query, key: (key <= query) | (key // 8 == query // 8),  # blocks
        lambda row, head, query, key: (key < query),
    ],
)
def test_mask_functions_that_are_not_of_the_spec(function, attach):
    from kvgrid.transformers import attention
    from kvgrid.transformers.forward import Forward

    Forward.begin(attach(tiny_model("mistral"), "mistral"), None)
    sizes = {"batch_size": 2, "kv_length": 64, "mask_function": function}
    try:
        for places in ({"q_length": 50, "q_offset": 14}, {"cache_position": torch.arange(14, 64)}):
            with pytest.raises(kvgrid.Unsupported, match="not causal"):
                attention.mask(**sizes, **places)
        with pytest.raises(kvgrid.Unsupported, match="functions of its own"):
            attention.mask(**sizes, q_length=50, q_offset=14, use_vmap=True)
    finally:
        Forward.take()


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"scaling": 0.5}, "scaling is 0.5"),
        ({"softcap": 30.0}, "softcap is 30.0"),
        ({"sliding_window": 64}, "sliding_window is 64"),
        ({"is_causal": False}, "is_causal is false"),
        ({"s_aux": torch.zeros(4)}, "s_aux is given"),
        ({"output_attentions": True}, "output_attentions is given"),
        ({"position_bias": torch.zeros(1)}, "position_bias is given"),
    ],
)
def test_arguments_of_the_attention_function(llama, attach, named, message):
    from kvgrid.transformers import attention
    from kvgrid.transformers.forward import Forward

    module = llama.model.layers[0].self_attn
    Forward.begin(attach(llama, "llama"), None)
    q, k = torch.zeros(1, 4, 3, 32), torch.zeros(1, 2, 3, 32)
    try:
        with pytest.raises(kvgrid.Unsupported, match=message):
            attention.attend(module, q, k, k, None, **{"scaling": 32**-0.5, **named})
    finally:
        Forward.take()


def test_a_model_whose_layers_are_not_those_of_its_configuration(attach):
    model = tiny_model("gemma2")
    cache = attach(model, "gemma2").cache()
    model.model.layers[1].self_attn.sliding_window = WINDOW
    with pytest.raises(kvgrid.Unsupported, match=f"sliding_window is {WINDOW} in layer 1"):
        logits_of(model, draw_ids(1, 5), cache)


@pytest.mark.parametrize("place", ["layer", "head"])
def test_an_exception_in_the_forward_aborts_its_step(llama, attach, place):
    ids = draw_ids(1, 30)
    exact, own_error = exact_logits(llama, ids)
    cache = attach(llama, "llama").cache()
    logits_of(llama, ids[:, :20], cache)
    broken = llama.model.layers[2].mlp if place == "layer" else llama.model.norm
    hook = broken.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        logits_of(llama, ids[:, 20:], cache)
    hook.remove()
    assert cache.lengths == [20] == [cache.sequences[0].length] and not cache.sequences[0].inspect().step_open

    assert_close_to_exact(logits_of(llama, ids[:, 20:], cache), exact[:, 20:], own_error)


def test_ctrl_c_in_a_forward_aborts_its_step_at_the_next_one(llama, attach):
    def interrupt(*_):
        raise KeyboardInterrupt

    cache = attach(llama, "llama").cache()
    hook = llama.model.layers[2].mlp.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt) as raised:
        logits_of(llama, draw_ids(1, 20), cache)
    assert raised  # its traceback still holds the forward's frames
    hook.remove()
    logits_of(llama, draw_ids(1, 7), cache)
    assert cache.lengths == [7]


def test_no_room_changes_nothing(llama, attach):
    cache = attach(llama, "llama-small", pool_bytes_per_worker=1 << 20).cache()
    logits_of(llama, draw_ids(1, 100), cache)
    with pytest.raises(kvgrid.NoRoom):
        logits_of(llama, draw_ids(1, 5000), cache)
    logits_of(llama, draw_ids(1, 1), cache)
    assert cache.lengths == [101]


def test_a_sequence_that_somebody_else_changed(llama, attach):
    cache = attach(llama, "llama").cache()
    logits_of(llama, draw_ids(1, 10), cache)
    cache.sequences[0].truncate(4)
    with pytest.raises(kvgrid.WrongState, match="somebody else changed them"):
        logits_of(llama, draw_ids(1, 1), cache)
    cache.reset()
    logits_of(llama, draw_ids(1, 3), cache)


def test_another_batch_and_a_closed_cache(llama, attach):
    cache = attach(llama, "llama").cache()
    logits_of(llama, draw_ids(2, 10), cache)
    with pytest.raises(kvgrid.InvalidArgument, match="3 rows and the cache 2"):
        logits_of(llama, draw_ids(3, 1), cache)
    with pytest.raises(TypeError):
        pickle.dumps(cache)
    cache.close()
    with pytest.raises(kvgrid.WrongState, match="is closed"):
        logits_of(llama, draw_ids(2, 1), cache)


def test_a_crop_beyond_a_window(attach):
    model = tiny_model("mistral")
    cache = attach(model, "mistral").cache()
    logits_of(model, draw_ids(2, 300), cache)
    with pytest.raises(kvgrid.WrongState, match="left the window"):
        cache.crop(-150)
    assert cache.lengths == [300, 300] and not cache.is_croppable if hasattr(cache, "is_croppable") else True


def test_models_that_are_not_served(model_grid):
    import transformers

    small = {"vocab_size": VOCABULARY, "num_hidden_layers": 1, "hidden_size": 64, "num_attention_heads": 2}
    gpt = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=VOCABULARY, n_layer=1, n_embd=64, n_head=2))
    thin = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**small, "hidden_size": 32}))
    for model in (gpt, thin):
        before = model.config._attn_implementation
        with model_grid.connect() as client, pytest.raises((kvgrid.Unsupported, kvgrid.InvalidArgument)):
            kvgrid.transformers.attach(model, client, name="refused")
        assert model.config._attn_implementation == before


def test_attached_twice_and_detached(llama, attach):
    before = llama.config._attn_implementation
    attached = attach(llama, "llama")
    with pytest.raises(kvgrid.InvalidArgument, match="attached already"):
        attach(llama, "llama")
    attached.detach()
    attached.detach()
    ids = draw_ids(1, 5)
    assert llama.config._attn_implementation == before
    assert generate(llama, ids).shape == (1, 45)


def test_pages_come_back_with_the_last_reference(llama, attach):
    attached = attach(llama, "llama")
    cache = attached.cache()
    logits_of(llama, draw_ids(1, 30), cache)
    gc.disable()  # no cycle keeps them
    try:
        del cache
        assert not attached.client.sequences(attached.grid_model)
    finally:
        gc.enable()
