"""From submit to result through real processes, and what a restart, a freeze and a cut leave alone."""

import re
import signal
import socket
import ssl
import time
from pathlib import Path
from typing import Any

import pytest

from tests.server.process import command, output, running_server, running_worker, wait_for, wait_until
from tq.core.vocabulary import Cancel, Get, Logs, Status, Workers


def document(client: Any, task: str) -> dict[str, Any]:
    value: dict[str, Any] = client.ask(Get(task)).value
    return value


def wait_until_started(client: Any, task: str) -> None:
    """Wait until the worker has said that it runs: assigned alone may still be on its way."""
    wait_until(lambda: document(client, task).get("phase") == "started")


def test_a_command_goes_all_the_way_and_its_result_comes_back(tmp_path: Path) -> None:
    with running_server(tmp_path) as server, running_worker(server), server.client() as client:
        client.ask(command("sh", "-c", "echo out; echo err >&2; exit 7"))
        answer = wait_for(client, "1")

        assert (answer.outcomes[0].state, answer.outcomes[0].code) == ("dead", 7)
        assert output(client, "1") == b"out\n"
        shown = document(client, "1")
        assert shown["command"] == ["sh", "-c", "echo out; echo err >&2; exit 7"]
        assert shown["usage"]["stderr_bytes"] == 4


def test_an_array_drains(tmp_path: Path) -> None:
    with running_server(tmp_path) as server, running_worker(server), server.client() as client:
        client.ask(command("sh", "-c", "exit $((TQ_MEMBER % 2))", size=100, is_array=True))
        answer = wait_for(client, "1")

        assert (answer.outcomes[0].ended, answer.outcomes[0].succeeded) == (100, 50)


def test_logs_follow_a_task_while_it_prints(tmp_path: Path) -> None:
    with running_server(tmp_path) as server, running_worker(server), server.client() as client:
        flag = tmp_path / "flag"
        client.ask(command("sh", "-c", f"echo one; while ! test -e {flag}; do sleep 0.05; done; echo two"))
        seen = b""
        for answer in client.subscribe(lambda: Logs("1", follow=True)):
            seen += getattr(answer, "data", b"")
            if seen == b"one\n":
                flag.touch()

        assert seen == b"one\ntwo\n"
        assert getattr(answer, "state", "") == "succeeded"


@pytest.mark.slow
def test_a_server_that_is_killed_and_stopped_again_and_again_loses_no_running_task(tmp_path: Path) -> None:
    with running_server(tmp_path) as server, running_worker(server), server.client() as client:
        flag, count = tmp_path / "flag", tmp_path / "count"
        script = f"echo $$ >> {count}; echo before; while ! test -e {flag}; do sleep 0.05; done; echo after"
        client.ask(command("sh", "-c", script))
        wait_until_started(client, "1")
        wait_until(count.exists)
        for end in (server.kill, server.stop, server.kill):
            end()
            server.start()
            wait_until(lambda: _connected(client) == 1)
        flag.touch()
        answer = wait_for(client, "1")

        assert answer.outcomes[0].state == "succeeded"
        assert document(client, "1")["attempt"] == 1
        assert len(count.read_text().split()) == 1
        assert output(client, "1") == b"before\nafter\n"


def test_a_task_that_ends_while_the_server_is_away_is_reported_afterwards(tmp_path: Path) -> None:
    with running_server(tmp_path) as server, running_worker(server), server.client() as client:
        done = tmp_path / "done"
        client.ask(command("sh", "-c", f"sleep 0.5; echo late; touch {done}; exit 3"))
        wait_until_started(client, "1")
        server.kill()
        wait_until(done.exists)
        server.start()
        answer = wait_for(client, "1")

        assert (answer.outcomes[0].code, document(client, "1")["attempt"]) == (3, 1)
        assert output(client, "1") == b"late\n"


@pytest.mark.slow
def test_a_frozen_server_declares_nobody_lost(tmp_path: Path) -> None:
    with running_server(tmp_path, "--heartbeat", "200ms") as server, running_worker(server), server.client() as client:
        flag = tmp_path / "flag"
        client.ask(command("sh", "-c", f"while ! test -e {flag}; do sleep 0.05; done"))
        wait_until_started(client, "1")
        server.process.send_signal(signal.SIGSTOP)
        time.sleep(1.5)  # more than seven beats: the freeze itself is what is tested
        server.process.send_signal(signal.SIGCONT)
        wait_until(lambda: _connected(client) == 1)
        flag.touch()
        wait_for(client, "1")

        assert document(client, "1")["attempt"] == 1
        assert "worker_lost" not in server.log()


@pytest.mark.slow
def test_a_frozen_worker_is_lost_and_its_task_runs_elsewhere(tmp_path: Path) -> None:
    with running_server(tmp_path, "--heartbeat", "200ms") as server, server.client() as client:
        with running_worker(server, slots=1) as worker:
            client.ask(command("sleep", "1"))
            wait_until_started(client, "1")
            worker.send_signal(signal.SIGSTOP)
            with running_worker(server, name="other"):
                answer = wait_for(client, "1")

                assert answer.outcomes[0].state == "succeeded"
                assert document(client, "1")["attempt"] == 2
                assert document(client, "1")["losses"] == 1
        assert re.search(r' worker_lost worker=w\w+ host=[^\s"]', server.log())


def test_a_cancel_ends_the_processes(tmp_path: Path) -> None:
    with running_server(tmp_path) as server, running_worker(server), server.client() as client:
        client.ask(command("sleep", "600"))
        wait_until_started(client, "1")
        client.ask(Cancel(("1",)))
        answer = wait_for(client, "1")

        assert answer.outcomes[0].state == "cancelled"


def test_only_tls_1_3_is_spoken_and_nonsense_does_not_hurt(tmp_path: Path) -> None:
    with running_server(tmp_path) as server, server.client() as client:
        for nonsense in (b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 1_000, b""):
            with socket.create_connection(("127.0.0.1", server.port), timeout=10) as plain:
                plain.sendall(nonsense)
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as plain:
            try:
                old.wrap_socket(plain)
            except (ssl.SSLError, OSError) as error:
                refused = str(error)
        assert refused

        assert client.ask(Status()).value["server"]["internal_errors"] == 0  # type: ignore[union-attr]


def _connected(client: Any) -> int:
    return sum(worker["state"] == "up" for worker in client.ask(Workers()).items)
