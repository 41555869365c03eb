"""A text that is longer than its window: logits are those of the model with a band for a mask, recomputed from the first token on; with positions
relative to the cache, those of a text that consists of the sinks and the window alone. Memory stays what it is. Two faults of a published
sliding cache are named where a test fails on them.

Where keys depend on more than their token (more than one layer), what the model remembers of tokens that are gone is in the keys of those that are not:
the recomputation with a band has that, too. So relative positions are compared with one layer, where keys have nothing to remember."""

import pytest
import torch
from tiny_models import ERROR_FACTOR, copy_without_hooks, draw_ids, exact_logits, logits_of, tiny_model

import kvgrid
from kvgrid.transformers import TextStream

WINDOW, SINKS = 40, 3


def band(tokens, window, sinks, dtype):
    """[1, 1, tokens, tokens], to be added: which keys each query sees."""
    query, key = torch.arange(tokens).view(-1, 1), torch.arange(tokens)
    sees = (key <= query) & ((query - key < window) | (key < sinks))
    return torch.zeros(tokens, tokens, dtype=dtype).masked_fill(~sees, torch.finfo(dtype).min).view(1, 1, tokens, tokens)


def exact_stream_logits(model, ids, window, sinks=0, positions=None):
    """In fp64, and the error of the same in f32."""
    found = []
    for exact in (copy_without_hooks(model), copy_without_hooks(model).double()):
        named = {} if positions is None else {"position_ids": positions.unsqueeze(0)}
        found.append(logits_of(exact, ids, attention_mask=band(ids.shape[1], window, sinks, exact.dtype), **named)[0])
    return found[1], float((found[0] - found[1]).abs().max())


def pieces_of(ids, sizes):
    at, pieces = 0, []
    while at < ids.shape[1]:
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(ids[0, at : at + size])
        at += size
    return pieces


@pytest.fixture
def stream_of(attach):
    def made(model, name, **named):
        return TextStream(attach(model, name), **named)

    return made


def test_a_window_that_is_not_full_changes_nothing(stream_of):
    model, ids = tiny_model("llama"), draw_ids(1, 60)
    exact, own_error = exact_logits(model, ids)
    for positions in ("absolute", "cache_relative"):
        with stream_of(model, "stream", window=100, sinks=SINKS, positions=positions) as stream:
            found = torch.cat([stream.feed(piece) for piece in pieces_of(ids, [7, 1, 20])])
        assert float((found - exact[0]).abs().max()) <= ERROR_FACTOR * own_error
        stream._attached.detach()


@pytest.mark.parametrize("sinks", [0, SINKS])
def test_absolute_positions_are_a_band(stream_of, sinks):
    model, ids = tiny_model("llama"), draw_ids(1, 200)
    exact, own_error = exact_stream_logits(model, ids, WINDOW, sinks)
    with stream_of(model, "stream", window=WINDOW, sinks=sinks, positions="absolute") as stream:
        found = torch.cat([stream.feed(piece) for piece in pieces_of(ids, [1, 5, 1, 30])])
    assert float((found - exact).abs().max()) <= ERROR_FACTOR * own_error


def test_positions_do_not_collapse(stream_of):
    """Published fault: once the cache was cut to make room, every new token got the last position of all, next to keys that kept theirs."""
    model, ids = tiny_model("llama"), draw_ids(1, 100)
    exact, own_error = exact_stream_logits(model, ids, WINDOW)
    collapsed, _ = exact_stream_logits(model, ids, WINDOW, positions=torch.arange(100).clamp(max=WINDOW - 1))
    assert float((collapsed - exact).abs().max()) > 100 * ERROR_FACTOR * own_error  # the test would see it
    with stream_of(model, "stream", window=WINDOW) as stream:  # relative: without sinks, the same distances
        found = torch.cat([stream.feed([token]) for token in ids[0].tolist()])
    assert float((found - exact).abs().max()) <= ERROR_FACTOR * own_error


@pytest.mark.parametrize("new", [WINDOW, 2 * WINDOW + 5])
def test_as_many_new_tokens_as_the_window_leave_none_of_the_old(stream_of, new):
    """Published fault: of new tokens that fill the window, 0 old ones were to be kept, and "the last 0" of a list are all of them."""
    model, ids = tiny_model("llama"), draw_ids(1, 64 + new + 1)
    exact, own_error = exact_stream_logits(model, ids, WINDOW)
    with stream_of(model, "stream", window=WINDOW, positions="absolute") as stream:
        stream.feed(ids[0, :64])
        found = torch.cat([stream.feed(ids[0, 64 : 64 + new]), stream.feed(ids[0, 64 + new :])])
    assert float((found - exact[64:]).abs().max()) <= ERROR_FACTOR * own_error


@pytest.mark.parametrize("rebase_at", [None, WINDOW + SINKS + 11])
def test_relative_positions_are_those_of_a_text_of_sinks_and_window_alone(stream_of, rebase_at):
    model, ids = tiny_model("llama", num_hidden_layers=1), draw_ids(1, 150)
    with stream_of(model, "stream-1", window=WINDOW, sinks=SINKS, rebase_at=rebase_at) as stream:
        found = torch.cat([stream.feed([token]) for token in ids[0].tolist()])
        for end in (WINDOW + SINKS, WINDOW + SINKS + 1, 101, 150):
            first = max(SINKS, end - WINDOW)
            alone = torch.cat([ids[:, :SINKS], ids[:, first:end]], dim=1)
            exact, own_error = exact_logits(model, alone)
            assert float((found[end - 1] - exact[0, -1]).abs().max()) <= ERROR_FACTOR * own_error


def test_a_rebase_is_not_seen(stream_of):
    model, ids = tiny_model("llama"), draw_ids(1, 200)
    exact, own_error = exact_stream_logits(model, ids, WINDOW)
    with stream_of(model, "stream", window=WINDOW, rebase_at=WINDOW + 20) as stream:
        found = torch.cat([stream.feed([token]) for token in ids[0].tolist()])
        assert stream._base > 100
    assert float((found - exact).abs().max()) <= ERROR_FACTOR * own_error


def test_memory_is_constant(stream_of, attach):
    model, ids = tiny_model("llama"), draw_ids(1, 1500)
    with stream_of(model, "stream", window=WINDOW, sinks=SINKS) as stream:
        sequence = stream._row.sequence
        pages = []
        for piece in ids[0].split(10):
            stream.feed(piece)
            pages.append(sum(sequence.inspect().pages_by_rank))
    assert max(pages[-128:]) == max(pages[len(pages) // 3 : len(pages) // 2]) <= 4 * 2 * 3  # layers, KV heads, pages that a window and the sinks touch


def test_nothing_new_gives_nothing(stream_of):
    with stream_of(tiny_model("llama"), "stream", window=WINDOW) as stream:
        assert stream.feed([]).shape == (0, 97)
        assert stream.feed([5]).shape == (1, 97) and stream.length == 1


def test_what_cannot_be_is_refused(attach):
    attached = attach(tiny_model("llama"), "stream")
    for named, why in [({"window": 0}, "window is 0"), ({"window": 5, "positions": "mine"}, "positions is"),
                       ({"window": 50, "rebase_at": 50}, "rebase_at is 50")]:
        with pytest.raises(kvgrid.InvalidArgument, match=why):
            TextStream(attached, **named)
    gemma = attach(tiny_model("gemma3"), "stream-gemma3")
    with pytest.raises(kvgrid.Unsupported, match="positions='absolute'"):
        TextStream(gemma, window=5)
