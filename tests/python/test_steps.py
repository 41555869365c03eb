"""Steps are transactions, handles end when they are told to, and every failure is the exception of its code. Pages are counted before and
after: what was refused has taken none."""

import gc

import numpy
import pytest

import kvgrid


def tensors(tokens, value=0.5):
    return [numpy.full((tokens, heads, 32), value, "float32") for heads in (4, 2, 2)]


def run(step):
    for layer in range(2):
        step.layer(layer, *tensors(step.token_count))


def used_pages(client, model):
    return sum(of.used_pages + of.reserved_pages
               for worker in client.occupancy().workers for of in worker.models if of.model == model.id)


def test_an_exception_aborts_and_passes(client, register):
    model = register()
    sequence = model.open()
    with pytest.raises(ZeroDivisionError), client.step([(sequence, 70)]) as step:
        step.layer(0, *tensors(70))
        raise ZeroDivisionError

    assert (sequence.length, sequence.inspect().step_open, used_pages(client, model)) == (0, False, 0)


def test_a_step_that_is_not_finished_is_refused_and_aborted(client, register):
    sequence = register().open()
    with pytest.raises(kvgrid.WrongState), client.step([(sequence, 1)]) as step:
        step.layer(0, *tensors(1))

    assert not sequence.inspect().step_open
    with client.step([(sequence, 1)]) as step:
        run(step)
    with pytest.raises(kvgrid.WrongState, match="is committed"):
        step.layer(0, *tensors(1))
    assert sequence.length == 1


def test_a_step_that_nobody_holds_is_aborted(client, register):
    sequence = register().open()
    step = client.step([(sequence, 1)])
    assert sequence.inspect().step_open
    del step
    gc.collect()

    assert not sequence.inspect().step_open


def test_a_sequence_that_only_its_step_holds_stays_until_then(client, register):
    model = register()
    step = client.step([(model.open(), 1)])
    gc.collect()
    run(step)
    assert len(client.sequences(model)) == 1
    step.commit()
    gc.collect()

    assert not client.sequences(model)


def test_no_room_takes_nothing(client, register):
    model = register()
    sequence = model.open()
    with pytest.raises(kvgrid.NoRoom):
        client.step([(sequence, 65_000)])
    with pytest.raises(kvgrid.NoRoom):
        model.open(expected_tokens=10_000_000)

    assert used_pages(client, model) == 0


def test_a_sequence_has_one_step_at_a_time(client, register):
    sequence = register().open()
    with client.step([(sequence, 1)]) as step:
        with pytest.raises(kvgrid.Busy):
            client.step([(sequence, 1)])
        with pytest.raises(kvgrid.Busy):
            sequence.close()
        run(step)

    assert sequence.length == 1


def test_what_is_closed_says_so(cluster, register):
    with cluster.connect() as client:
        model = client.models()[0] if client.models() else register()
        sequence = model.open()
        sequence.close()
        sequence.close()
        with pytest.raises(kvgrid.WrongState, match="this sequence is closed"):
            sequence.inspect()
        with pytest.raises(kvgrid.WrongState, match="this sequence is closed"):
            client.step([(sequence, 1)])
        left = model.open()
        identity = left.id
    with pytest.raises(kvgrid.WrongState, match="this client is closed"):
        client.status()
    with cluster.connect() as other, pytest.raises(kvgrid.NotFound):
        other.attach(identity)


def test_pages_come_back_with_the_last_reference(client, register):
    model = register()
    sequence = model.open()
    with client.step([(sequence, 100)]) as step:
        run(step)
    assert used_pages(client, model) > 0
    del sequence
    gc.collect()

    assert used_pages(client, model) == 0


def test_a_released_sequence_can_be_attached(cluster, register):
    model = register()
    with cluster.connect() as client:
        mine = next(each for each in client.models() if each.id == model.id)
        sequence = mine.open(tenant="somebody")
        with client.step([(sequence, 3)]) as step:
            run(step)
        identity = sequence.release()
    with cluster.connect() as client:
        listed = [each for each in client.sequences(mine) if each.id == identity]
        assert [each.tenant for each in listed] == ["somebody"]
        with client.attach(identity) as sequence:
            assert sequence.length == 3


def test_an_unknown_sequence_is_not_found(client):
    with pytest.raises(kvgrid.NotFound) as raised:
        client.attach(10**12)
    assert raised.value.code == "not_found" and raised.value.message == str(raised.value)


def test_one_name_is_one_spec(client, register):
    spec = register().spec
    assert client.register(spec).spec == spec
    other = kvgrid.ModelSpec(name=spec.name, layers=3, query_heads=4, kv_heads=2, head_dim=32, dtype="f32")
    with pytest.raises(kvgrid.AlreadyExists):
        client.register(other)


def test_nobody_there_is_unavailable_and_a_connection_error():
    with pytest.raises(ConnectionError) as raised:
        kvgrid.connect("unix:/nowhere/coordinator.sock", timeout=0.2)
    assert type(raised.value) is kvgrid.Unavailable


def test_each_code_has_its_class():
    from kvgrid.errors import error_for

    codes = ("invalid_argument not_found already_exists no_room busy wrong_state stale_generation deadline_exceeded unavailable "
             "peer_lost unsupported corrupt internal").split()
    kinds = [type(error_for(code, "text")) for code in codes]
    assert [kind.code for kind in kinds] == codes and len(set(kinds)) == len(codes)
    assert all(kind.__name__ in kvgrid.__all__ for kind in kinds)
    assert issubclass(kvgrid.DeadlineExceeded, TimeoutError)
