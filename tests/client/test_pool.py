"""One blocking client for a whole program: its threads, and what it forks, each ask over connections of their own."""

import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import tq.client
from tq.core import vocabulary as v
from tq.errors import Unreachable


def test_each_of_the_threads_that_ask_at_once_gets_its_answer(server, environ):
    """One waits for the others here: they ask over other connections, which the next ones use."""
    gate = threading.Barrier(3)
    server.says[v.Get] = lambda asked: (gate.wait(20), v.Document({"id": asked.id, "state": f"s{asked.id}"}))[1]
    with tq.client.connect_blocking(environ=environ) as client, ThreadPoolExecutor(3) as threads:
        for _ in range(5):
            assert list(threads.map(lambda name: client.job(name).state(), "123")) == ["s1", "s2", "s3"]
        assert len(server.hellos) == 3
    with pytest.raises(Unreachable, match="is closed"):
        client.status()


def test_who_waits_in_a_thread_when_others_close_gets_its_answer(server, environ):
    gate = threading.Event()
    server.says[v.Get] = lambda _: (gate.wait(20), v.Document({"id": "42", "state": "running"}))[1]
    client = tq.client.connect_blocking(environ=environ)
    with ThreadPoolExecutor(1) as threads:
        state = threads.submit(client.job("42").state)
        server.waits_for(v.Get)
        client.close()
        gate.set()
        assert state.result() == "running"


def test_who_hands_a_client_or_a_job_to_another_process_is_told_what_to_do(server, environ):
    with tq.client.connect_blocking(environ=environ) as client:
        for one in (client, client.job("42"), client.jobs()):
            with pytest.raises(TypeError, match="connect there, and give it the ids of jobs"):
                pickle.dumps(one)


FORK = """
import os, sys, tq.client
with tq.client.connect_blocking() as client:
    if not (child := os.fork()):
        {child}
        sys.exit(0)
    status = os.waitpid(child, 0)[1]
    print(client.submit("m:f", "parent").id, status)
"""


@pytest.mark.parametrize("child, connections", [('print(client.submit("m:f", "child").id)', [2, 2]), ("pass", [1])])
def test_a_fork_speaks_on_a_connection_of_its_own(server, environ, child, connections):
    ids = iter(["41", "42"])
    seen: list[int] = []

    def submitted(_: object) -> v.Answer:
        seen.append(len(server.hellos))
        return v.Submitted(next(ids))

    server.says[v.Submit] = submitted
    code = FORK.format(child=child)
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == [*["41"] * (len(connections) - 1), f"{40 + len(connections)} 0"]
    assert seen == connections


LOOP = """
import os, sys, tq.client
with tq.client.connect_blocking() as client:
    for piece in client.job("42").logs(follow=True):
        if not (child := os.fork()):
            sys.exit(0)
        os.waitpid(child, 0)
    print(client.job("43").state())
"""


def test_a_fork_that_leaves_a_loop_of_its_parents_says_nothing_on_that_connection(server, environ):
    server.says[v.Logs] = lambda _: [v.Chunk(1, 0, b"a", 1), v.Chunk(1, 1, b"b", 1), v.LogsEnd(1, (2, 0), "succeeded")]
    server.says[v.Get] = lambda _: v.Document({"id": "43", "state": "running"})
    done = subprocess.run([sys.executable, "-c", LOOP], env=environ, capture_output=True, text=True, check=True)

    assert done.stdout == "running\n"
    assert len(server.hellos) == 1
