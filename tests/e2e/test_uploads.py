"""Inputs through real processes: clients and servers killed in the middle of an upload, and everything arrives once."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.server.process import ServerProcess, running_server, running_worker, wait_for, wait_until
from tq.core.model import tables
from tq.core.vocabulary import AddEntries, List, Uploaded
from tq.store.disk import open_for_reading
from tq.store.lock import lock_directory

WORDS = ("--quiet", "--hold", "--", "echo", "{}")


def submit(server: ServerProcess, *words: str, **more: Any) -> subprocess.Popen[bytes]:
    """Start `tq submit` with these words."""
    return subprocess.Popen(
        [sys.executable, "-m", "tq", "submit", *words],
        env=server.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **{"stdin": subprocess.DEVNULL, **more},
    )  # fmt: skip


def ended(process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out.decode(), err.decode()


def jobs(client: Any) -> list[str]:
    return [item["id"] for item in client.ask(List()).items]


def stored(server: ServerProcess, number: int = 1) -> list[bytes]:
    """Return the entries of a job of a server that has stopped, in the order of its members."""
    with lock_directory(server.data) as lock:
        store = open_for_reading(lock)
        try:
            job = store.get(tables.JOB, (number, 0))
            assert job is not None
            found: list[bytes] = []
            while len(found) < job.size:
                run = store.get(tables.ENTRIES, (job.entries, len(found)))
                assert run is not None
                found.extend(run.items)
            return found
        finally:
            store.close()


def numbers(path: Path, count: int) -> list[bytes]:
    """Write a line for each number, and return the lines."""
    lines = [b"%d" % number for number in range(count)]
    path.write_bytes(b"".join(b"%s\n" % line for line in lines))
    return lines


def received(server: ServerProcess, key: str, count: int = 1) -> Callable[[], bool]:
    """Return a condition: so many entries of this upload are on the server."""

    def is_there() -> bool:
        with server.client() as client:
            answer = client.ask(AddEntries(key, 0, ()))
            assert isinstance(answer, Uploaded)
            return answer.received >= count

    return is_there


@pytest.mark.slow
def test_a_client_killed_again_and_again_makes_one_job_of_all_lines(tmp_path: Path) -> None:
    """Some are killed at a time, anywhere; some at a place, in the middle of what a pipe brings them."""
    lines = numbers(tmp_path / "lines", 150_000)
    dice = random.Random(3)
    words = ("--key", "k", "--each-line", str(tmp_path / "lines"), *WORDS)
    with running_server(tmp_path) as server, server.client() as client:
        for place in (5_500, 40_001, 0, 90_000, 0, 140_000, 0):
            process = submit(server, "--key", "k", "--each-line", "-", *WORDS, stdin=subprocess.PIPE)
            assert process.stdin is not None
            if place:
                process.stdin.write(b"".join(b"%s\n" % line for line in lines[:place]))
                process.stdin.flush()
                wait_until(received(server, "k", place // 1_000 * 1_000))
            else:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(dice.uniform(0.15, 0.4))
            process.kill()
            process.communicate()
            assert jobs(client) == []
        assert ended(submit(server, *words))[:2] == (0, "1\n")
        assert ended(submit(server, *words))[:2] == (0, "1\n")
        assert jobs(client) == ["1"]
        server.stop()
        assert stored(server) == lines


@pytest.mark.slow
def test_a_killed_client_leaves_no_job_and_nothing_that_runs(tmp_path: Path) -> None:
    with running_server(tmp_path) as server, running_worker(server), server.client() as client:
        reading, writing = os.pipe()
        process = submit(server, "--key", "k", "--each-line", "-", "--", "touch", str(tmp_path / "ran"), stdin=reading)
        os.close(reading)
        os.write(writing, b"x\n" * 2_500)
        wait_until(received(server, "k"))
        process.kill()
        process.communicate()
        os.close(writing)
        assert jobs(client) == []
        assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_an_interrupted_client_says_how_to_go_on(tmp_path: Path) -> None:
    with running_server(tmp_path) as server, server.client() as client:
        reading, writing = os.pipe()
        process = submit(server, "--key", "k", "--each-line", "-", *WORDS[1:], stdin=reading)
        os.write(writing, b"x\n" * 2_500)
        wait_until(received(server, "k"))
        process.send_signal(signal.SIGINT)
        status, out, err = ended(process)
        os.close(reading)
        os.close(writing)
        assert (status, out) == (130, "")
        assert "nothing was submitted" in err
        assert "--key k" in err
        assert jobs(client) == []


@pytest.mark.slow
@pytest.mark.parametrize("stop", ["kill", "stop"])
def test_a_server_that_goes_away_in_the_middle_of_an_upload_gets_the_rest(tmp_path: Path, stop: str) -> None:
    """Standard input cannot be read twice, so nothing may be forgotten before it is on disk."""
    lines = [b"%d" % number for number in range(60_000)]
    data = b"".join(b"%s\n" % line for line in lines)
    with running_server(tmp_path) as server:
        reading, writing = os.pipe()
        process = submit(server, "--key", "k", "--each-line", "-", *WORDS, stdin=reading)
        os.close(reading)
        step = len(data) // 4 + 1
        with os.fdopen(writing, "wb", buffering=0) as pipe:
            for number in range(4):
                pipe.write(data[number * step : (number + 1) * step])
                if number < 3:
                    wait_until(received(server, "k"))
                    getattr(server, stop)()
                    server.start()
        assert ended(process)[:2] == (0, "1\n")
        server.stop()
        assert stored(server) == lines


@pytest.mark.slow
def test_two_clients_with_one_key_make_one_job(tmp_path: Path) -> None:
    lines = numbers(tmp_path / "lines", 50_000)
    words = ("--key", "k", "--each-line", str(tmp_path / "lines"), *WORDS)
    with running_server(tmp_path) as server:
        both = [submit(server, *words) for _ in range(3)]
        assert [ended(process) for process in both] == [(0, "1\n", "")] * 3
        server.stop()
        assert stored(server) == lines


@pytest.mark.slow
def test_two_clients_with_one_key_and_other_lines_do_not_mix(tmp_path: Path) -> None:
    one, other = numbers(tmp_path / "one", 40_000), [b"x%d" % number for number in range(40_000)]
    (tmp_path / "other").write_bytes(b"\n".join(other))
    with running_server(tmp_path) as server:
        both = [submit(server, "--key", "k", "--each-line", str(tmp_path / name), *WORDS) for name in ("one", "other")]
        assert sorted(ended(process)[0] for process in both) == [0, 1]
        server.stop()
        assert stored(server) in (one, other)


@pytest.mark.slow
def test_each_of_many_lines_reaches_its_own_task(tmp_path: Path) -> None:
    """Through real workers: every task writes its number and its entry."""
    lines = [f"line {number} of \xe9 '$(x)'".encode() for number in range(400)]
    (tmp_path / "lines").write_bytes(b"\n".join(lines))
    (tmp_path / "out").mkdir()
    with running_server(tmp_path) as server, running_worker(server), server.client() as client:
        script = 'printf %s "$2" > "$1"'
        words: Sequence[str] = ("--each-line", "lines", "--", "sh", "-c", script, "sh", "out/{#}", "{}")
        assert ended(submit(server, *words, cwd=tmp_path))[1] == "1\n"
        quoted = ("--each-line", "lines", "--shell", "--", "echo {} > out/shell{#}")
        assert ended(submit(server, *quoted, cwd=tmp_path))[1] == "2\n"
        wait_for(client, "1", "2")
    for number, line in enumerate(lines, 1):
        assert (tmp_path / f"out/{number}").read_bytes() == line
        assert (tmp_path / f"out/shell{number}").read_bytes() == line + b"\n"


@pytest.mark.slow
def test_a_hundred_thousand_lines_are_stored_in_order_and_survive_a_kill(tmp_path: Path) -> None:
    lines = numbers(tmp_path / "lines", 100_000)
    with running_server(tmp_path) as server:
        assert ended(submit(server, "--each-line", str(tmp_path / "lines"), *WORDS)) == (0, "1\n", "")
        server.kill()
        server.start()
        server.stop()
        assert stored(server) == lines
