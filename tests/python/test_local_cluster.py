"""A local cluster lives as long as it is wanted, and its processes end with it: by stop, at the interpreter's exit, and by SIGKILL. Whether
processes are there is read in /proc: each names the cluster's directory in its command line."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

import kvgrid

PROGRAM = """
import kvgrid, os, signal, sys, threading
def start():
    global cluster
    cluster = kvgrid.local(workers=2, memory="16MiB", processes={processes})
thread = threading.Thread(target=start)  # that ends long before its cluster
thread.start()
thread.join()
client = cluster.connect()
model = client.register(kvgrid.ModelSpec(layers=1, query_heads=1, kv_heads=1, head_dim=32, dtype="f32"))
sequence = model.open()
print(cluster.endpoint, flush=True)
{then}
"""


def processes_of(endpoint):
    directory = os.path.dirname(endpoint.removeprefix("unix:")).encode()
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if directory in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def wait_until_gone(endpoint):
    deadline = time.monotonic() + 15
    while processes_of(endpoint):
        assert time.monotonic() < deadline, f"processes {processes_of(endpoint)} are left"
        time.sleep(0.02)


def interpreter(then, processes=False):
    program = PROGRAM.format(then=then, processes=processes)
    return subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True)


def test_stop_ends_all_processes():
    cluster = kvgrid.local(workers=2, memory="16MiB")
    client = cluster.connect()
    assert client.status().ready and len(processes_of(cluster.endpoint)) == 2
    cluster.stop()
    cluster.stop()

    assert not processes_of(cluster.endpoint)
    with pytest.raises(kvgrid.WrongState):
        client.status()


@pytest.mark.parametrize("processes", [False, True])
def test_a_cluster_outlives_the_thread_that_started_it_but_not_a_killed_interpreter(processes):
    with interpreter("sys.stdin.read()", processes) as running:
        endpoint = running.stdout.readline().strip()
        assert len(processes_of(endpoint)) >= 2
        running.send_signal(signal.SIGKILL)
    wait_until_gone(endpoint)


def test_a_cluster_ends_with_its_interpreter_in_time():
    begin = time.monotonic()
    said, complaints = (running := interpreter("")).communicate(timeout=30)

    assert running.returncode == 0 and complaints == ""
    assert not processes_of(said.strip())
    assert time.monotonic() - begin < 15


def test_an_exit_with_an_exception_ends_it_too():
    said, complaints = interpreter("raise RuntimeError('as meant')").communicate(timeout=30)

    assert "as meant" in complaints
    assert not processes_of(said.strip())


def test_a_forked_process_leaves_the_cluster_alone():
    then = """
child = os.fork()
if child == 0:
    for call in (client.status, sequence.inspect):
        try:
            call()
        except kvgrid.WrongState as error:
            assert "was forked" in str(error)
        else:
            os._exit(3)
    sys.exit(0)  # runs what runs at exit
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert client.status().ready and sequence.length == 0
"""
    running = interpreter(then)
    complaints = running.communicate(timeout=60)[1]
    assert running.returncode == 0, complaints


def test_ctrl_c_ends_a_start():
    """Under mpirun a start takes most of a second: the signal comes while it waits."""
    timer = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        timer.start()
        with kvgrid.local(workers=2, memory="16MiB", processes=True):
            time.sleep(10)


@pytest.mark.parametrize(
    ("wish", "kind"), [({"workers": 0}, kvgrid.InvalidArgument), ({"memory": "much"}, kvgrid.InvalidArgument),
                       ({"device": "gpu:77"}, kvgrid.Error)])
def test_what_cannot_be_started_says_why(wish, kind):
    with pytest.raises(kind) as raised:
        kvgrid.local(**{"workers": 1, "memory": "16MiB", **wish})
    assert raised.value.message
