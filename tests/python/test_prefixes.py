"""What one client keeps, another one begins with: by token ids, in whole pages, within a tenant, and each writes to pages of its own."""

import asyncio

import numpy
import pytest

import kvgrid
import kvgrid.aio

TOKENS = list(range(1000, 1200))


def write(client, sequence, count, value):
    """`count` tokens whose k and v are `value` in every element."""
    with client.step([(sequence, count)], kind="write") as step:
        for layer in range(2):
            rows = numpy.full((count, 2, 32), value, "float32")
            step.layer(layer, k=rows, v=rows)


def keys(sequence, first, count):
    return numpy.unique(sequence.read_kv(0, first, count)[0]).tolist()


@pytest.fixture
def kept(client, register):
    """A model of which 150 tokens, and so two pages, are kept."""
    model = register()
    with model.open() as sequence:
        write(client, sequence, 150, 1)
        sequence.keep(TOKENS[:150])
    return model


@pytest.fixture
def another(cluster, kept):
    """The model as another client knows it."""
    with cluster.connect() as connected:
        yield next(model for model in connected.models() if model.id == kept.id)


def test_another_client_begins_with_whole_pages_of_what_is_kept(another):
    for prompt, length in ((TOKENS, 128), (TOKENS[:129], 128), (TOKENS[:128], 64), (TOKENS[:64], 0), ([1, *TOKENS], 0), ([], 0)):
        with another.open(token_ids=prompt) as sequence:
            assert (sequence.prefix_length, sequence.length) == (length, length)
    assert another.open(token_ids=numpy.array([*TOKENS[:100], *TOKENS[:100]])).prefix_length == 64
    assert another.open().prefix_length == 0


def test_tenants_and_salts_do_not_find_one_anothers(another):
    assert another.open(token_ids=TOKENS, tenant="other").prefix_length == 0
    assert another.open(token_ids=TOKENS, prefix_salt=b"other weights").prefix_length == 0


def test_what_is_kept_is_listed_as_such(client, kept):
    (listed,) = client.sequences(kept)

    assert (listed.kept_tokens, listed.tenant) == (128, "default")


def test_a_fork_that_is_written_to_leaves_what_is_kept(kept, another):
    client = another._client
    with another.open(token_ids=TOKENS) as one, another.open(token_ids=TOKENS) as other:
        write(client, one, 10, 2)
        rows = numpy.full((60, 2, 32), 3, "float32")
        one.rewrite_kv(0, 4, rows, rows)
        assert (keys(one, 0, 64), keys(one, 128, 10)) == ([1, 3], [2])
        assert keys(other, 0, 128) == [1]
    assert keys(kept.open(token_ids=TOKENS), 0, 128) == [1]


def test_less_than_a_page_is_not_kept_and_more_than_there_is_is_refused(client, register):
    model = register()
    sequence = model.open()
    write(client, sequence, 100, 1)
    sequence.keep(TOKENS[:63])
    with pytest.raises(kvgrid.InvalidArgument, match="it has 100"):
        sequence.keep(TOKENS)

    assert len(client.sequences(model)) == 1


def test_a_pool_that_is_full_of_what_is_kept_takes_steps(client, register):
    model = register()
    room = 4 * (4 << 20) // (2 * 2 * 2 * 32 * 4)  # tokens: 4 workers of 4 MiB; 2 layers, 2 heads, k and v, 32 elements of 4 bytes
    tokens = room // 4
    for text in range(8):
        with model.open() as sequence:
            write(client, sequence, tokens, 1)
            sequence.keep([text] * tokens)

    assert 2 <= len(client.sequences(model)) <= 4
    with model.open() as sequence:
        write(client, sequence, room, 1)
        assert client.sequences(model)[0].kept_tokens == 0


def test_the_same_from_asyncio(cluster, kept):
    async def begin():
        async with await kvgrid.aio.connect(cluster.endpoint) as client:
            model = next(each for each in await client.models() if each.id == kept.id)
            async with await model.open(token_ids=TOKENS) as sequence:
                await sequence.keep(TOKENS[:128])
                return sequence.prefix_length

    assert asyncio.run(begin()) == 128
