"""Who waits lets others run. The coordinator is a socket that accepts and never answers, so that a call waits until its deadline: other
threads, Ctrl-C and the event loop must go on meanwhile."""

import asyncio
import os
import signal
import socket
import threading
import time

import numpy
import pytest

import kvgrid
import kvgrid.aio


@pytest.fixture
def silent(tmp_path_factory):
    """The endpoint of somebody who never answers."""
    with socket.socket(socket.AF_UNIX) as listener:
        path = tmp_path_factory.mktemp("s") / "s"
        listener.bind(str(path))
        listener.listen()
        yield f"unix:{path}"


def test_other_threads_run_while_a_call_waits_for_its_deadline(silent):
    client = kvgrid.connect(silent, timeout=0.6, wait_until_ready=False)
    turns, over = 0, threading.Event()

    def count():
        nonlocal turns
        while not over.wait(0.01):
            turns += 1

    counter = threading.Thread(target=count)
    counter.start()
    with pytest.raises(TimeoutError) as raised:
        client.status()
    seen = turns
    over.set()
    counter.join()

    assert type(raised.value) is kvgrid.DeadlineExceeded
    assert seen >= 5  # of about 60


def test_ctrl_c_ends_a_connect_that_waits(silent):
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        kvgrid.connect(silent, timeout=20)
    assert time.monotonic() - begin < 10


def test_threads_share_a_client(client, register):
    model = register()
    k = numpy.ones((1, 2, 32), "float32")
    q = numpy.ones((1, 4, 32), "float32")
    failures = []

    def decode():
        try:
            with model.open() as sequence:
                for _ in range(20):
                    with client.step([(sequence, 1)]) as step:
                        for layer in range(2):
                            assert (step.layer(layer, q, k, k) == 1).all()
                assert sequence.length == 20
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=decode) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_async_calls_run_together(cluster):
    q, k = numpy.ones((5, 4, 32), "float32"), numpy.ones((5, 2, 32), "float32")

    async def decode(client, model):
        async with await model.open() as sequence:
            for _ in range(3):
                async with await client.step([(sequence, 5)]) as step:
                    for layer in range(2):
                        assert (await step.layer(layer, q, k, k) == 1).all()
            fork = await sequence.fork()
            await fork.truncate(7)
            return await sequence.length(), await fork.length()

    async def everything():
        async with await kvgrid.aio.connect(cluster.endpoint) as client:
            spec = kvgrid.ModelSpec(name="async", layers=2, query_heads=4, kv_heads=2, head_dim=32, dtype="f32")
            model = await client.register(spec, pool_bytes_per_worker=4 << 20)
            assert (await client.status()).ready
            return await asyncio.gather(*(decode(client, model) for _ in range(4)))

    assert asyncio.run(everything()) == [(15, 7)] * 4


def test_the_event_loop_runs_while_a_call_waits(silent):
    async def everything():
        client = await kvgrid.aio.connect(silent, timeout=0.6, wait_until_ready=False)
        call = asyncio.ensure_future(client.status())
        turns = 0
        while not call.done():
            await asyncio.sleep(0.01)
            turns += 1
        with pytest.raises(kvgrid.DeadlineExceeded):
            await call
        await client.close()
        return turns

    assert asyncio.run(everything()) >= 5


def test_a_cancelled_task_aborts_its_step(cluster):
    async def everything():
        async with await kvgrid.aio.connect(cluster.endpoint) as client:
            spec = kvgrid.ModelSpec(name="cancelled", layers=2, query_heads=4, kv_heads=2, head_dim=32, dtype="f32")
            sequence = await (await client.register(spec, pool_bytes_per_worker=4 << 20)).open()

            async def hold(begun):
                async with await client.step([(sequence, 1)]):
                    begun.set()
                    await asyncio.Event().wait()

            begun = asyncio.Event()
            task = asyncio.ensure_future(hold(begun))
            await begun.wait()
            assert (await sequence.inspect()).step_open
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return (await sequence.inspect()).step_open

    assert asyncio.run(everything()) is False
