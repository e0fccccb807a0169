"""How a server starts, refuses to, and stops: with real processes."""

import json
import os
import shutil
import socket
import stat
import subprocess
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.server.process import ServerProcess, command, free_port, running_server, running_worker, wait_until
from tq.core.vocabulary import Get, Status, Submitted
from tq.errors import TqError


def test_a_first_start_makes_everything_and_a_stop_leaves_no_connection_file(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        said = json.loads((server.data / "connection.json").read_text())
        copy = json.loads((tmp_path / "state/tq/connection.json").read_text())
        assert said["url"] == f"tq://127.0.0.1:{server.port}"
        assert copy == {**said, "data": str(server.data)}
        for path in (server.data / "connection.json", tmp_path / "state/tq/connection.json"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(server.data.stat().st_mode) == 0o700
        secret = said["token"]

        assert server.stop() == 0
        assert not (server.data / "connection.json").exists()
        assert not (tmp_path / "state/tq/connection.json").exists()
        assert secret not in server.log()


def test_a_second_server_says_who_holds_the_directory(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        second = ServerProcess(tmp_path).run()

        assert second.returncode == 78
        assert f"pid {server.process.pid}" in second.stderr
        with server.client() as client:
            client.ask(Status())


def test_of_two_very_first_starts_exactly_one_serves(tmp_path: Path) -> None:
    first, second = ServerProcess(tmp_path), ServerProcess(tmp_path)
    processes: list[Any] = [
        subprocess.Popen(one.command, env=one.environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for one in (first, second)
    ]
    try:
        wait_until(lambda: any(process.poll() is not None for process in processes))
        winner, loser = sorted(processes, key=lambda process: process.poll() is not None)
        assert loser.returncode == 78
        assert f"pid {winner.pid}" in loser.stderr.read()
        wait_until((first.data / "connection.json").exists)
        winner.terminate()
        assert winner.wait(30) == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stderr.close()


def test_a_port_in_use_is_said_and_the_other_server_goes_on(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    with running_server(tmp_path / "a") as server:
        other = ServerProcess(tmp_path / "b")
        other.port = server.port
        done = other.run()

        assert done.returncode == 78
        assert f"cannot listen on 127.0.0.1:{server.port}" in done.stderr
        assert not (other.data / "connection.json").exists()
        with server.client() as client:
            client.ask(Status())


@pytest.mark.parametrize(
    "spoil,text",
    [
        (lambda data: data.chmod(0o755), "open to other users"),
        (lambda data: (data / "format").write_text("format 99\nwritten by tq 9.0\n"), "written by tq 9.0"),
        (lambda data: (data / "format").unlink(), "no file `format`"),
        (lambda data: (data / "watermark").unlink(), "watermark"),
        (lambda data: (data / "identity/ca.key").chmod(0o644), "ca.key"),
        (lambda data: (data / "identity/ca.key").unlink(), "ca.key is missing"),
        (lambda data: (data / "identity/ca.pem").unlink(), "ca.pem"),
    ],
    ids=["mode", "newer store", "no format", "no watermark", "open key", "no key", "no CA"],
)
def test_a_directory_that_is_not_in_order_is_refused_with_its_reason(tmp_path: Path, spoil: Any, text: str) -> None:
    with running_server(tmp_path) as server:
        server.stop()
        spoil(server.data)

        for done in (ServerProcess(tmp_path, "--check").run(), server.run()):
            assert (done.returncode, done.stdout) == (78, "")
            assert text in done.stderr
            assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_check_says_whether_a_server_could_start_and_changes_nothing(tmp_path: Path) -> None:
    fresh = ServerProcess(tmp_path, "--check").run()
    assert (fresh.returncode, list(tmp_path.iterdir())) == (0, [])
    data = ServerProcess(tmp_path).data
    data.mkdir(parents=True, mode=0o755)
    empty = ServerProcess(tmp_path, "--check").run()
    assert (empty.returncode, empty.stdout) == (0, f"{data}: no store there yet; a server would begin one\n")
    (data / "note").touch()
    foreign = ServerProcess(tmp_path, "--check").run()
    assert foreign.returncode == 78
    assert "open to other users" in foreign.stderr
    (data / "note").unlink()
    with running_server(tmp_path) as server:
        held = ServerProcess(tmp_path, "--check").run()
        assert held.returncode == 78
        assert f"pid {server.process.pid}" in held.stderr
        server.stop()
        before = sorted(path.name for path in server.data.iterdir())
        good = ServerProcess(tmp_path, "--check").run()

        assert good.returncode == 0
        assert "in order" in good.stdout
        assert sorted(path.name for path in server.data.iterdir()) == before


def _bad_key(data: Path) -> None:
    identity = data / "identity"
    identity.mkdir(mode=0o700, parents=True)
    data.chmod(0o700)
    (identity / "ca.key").write_text("nonsense")
    (identity / "ca.key").chmod(0o600)
    (identity / "ca.pem").write_text("nonsense")


@pytest.mark.parametrize(
    "spoil,text",
    [(lambda data: data.touch(mode=0o600), "the data directory"), (_bad_key, "cannot be read")],
    ids=["a file", "a bad key and no store"],
)
def test_check_and_start_agree_where_there_is_no_store(tmp_path: Path, spoil: Any, text: str) -> None:
    server = ServerProcess(tmp_path)
    server.data.parent.mkdir(parents=True, exist_ok=True)
    spoil(server.data)
    for done in (ServerProcess(tmp_path, "--check").run(), server.run()):
        assert (done.returncode, done.stdout) == (78, "")
        assert text in done.stderr


def test_an_identity_that_is_gone_is_made_anew_and_said(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        with server.client() as client:
            known: Any = client.ask(command("true"))
        server.stop()
        assert "identity_made_anew" not in server.log()
        shutil.rmtree(server.data / "identity")

        server.start()
        assert "identity_made_anew" in server.log()
        with server.client() as client:
            shown: Any = client.ask(Get(known.id))
            assert shown.value["id"] == known.id


def test_the_admin_token_survives_a_restart_so_that_workers_can_go_on(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        first = json.loads((server.data / "connection.json").read_text())
        server.kill()
        server.start()
        second = json.loads((server.data / "connection.json").read_text())

        assert (first["token"], first["ca"]) == (second["token"], second["ca"])


@pytest.mark.slow
def test_what_was_acknowledged_survives_a_kill_and_a_stop(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        for life in range(3):
            with server.client() as client:
                for number in range(20):
                    answer = client.ask(command("true", key=f"{life}.{number}", name=f"job-{life}-{number}"))
                    assert isinstance(answer, Submitted)
                    assert answer.id == str(life * 20 + number + 1)
            server.kill() if life % 2 else server.stop()
            server.start()

        with server.client() as client:
            names = [client.ask(Get(str(number))).value["name"] for number in range(1, 61)]  # type: ignore[union-attr]
        assert names == [f"job-{life}-{number}" for life in range(3) for number in range(20)]


@pytest.mark.slow
def test_a_stop_under_load_is_quick_and_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        answered: list[str] = []
        ends: list[str] = []

        def load(name: int) -> None:
            with server.client(patience_s=0) as client:
                try:
                    for number in range(10_000):
                        answer: Any = client.ask(command("true", key=f"{name}.{number}"))
                        answered.append(answer.id)
                except TqError as error:
                    ends.append(error.code)

        threads = [threading.Thread(target=load, args=(name,)) for name in range(3)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(answered) > 100)
        assert server.stop() == 0
        for thread in threads:
            thread.join()
        assert set(ends) <= {"not_done", "unreachable", "unknown"}
        server.start()
        with server.client() as client:
            for job in answered:
                client.ask(Get(job))
        assert len(set(answered)) == len(answered)


def test_a_stop_tells_clients_and_does_not_wait_for_them(tmp_path: Path) -> None:
    with running_server(tmp_path) as server, server.client() as client:
        client.ask(Status())
        assert server.stop() == 0

    assert "server_stopped status=0" in server.log()


@pytest.mark.slow
def test_a_server_whose_files_are_removed_says_so_and_takes_nothing_more(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        with server.client() as client:
            known: Any = client.ask(command("true"))
        (server.data / "db").rename(tmp_path / "db")
        assert server.process.wait(30) == 74
        assert "removed or replaced" in server.log()
        (tmp_path / "db").rename(server.data / "db")

        server.start()
        with server.client() as client:
            shown: Any = client.ask(Get(known.id))
            assert shown.value["id"] == known.id


@pytest.mark.slow
def test_a_disk_that_fails_ends_the_server_with_74_and_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """A bound on the size of files makes RocksDB's writes fail, as a full disk does."""
    server = ServerProcess(tmp_path, before="ulimit -f 96")
    server.start()
    acknowledged = []
    try:
        with server.client(patience_s=0) as client:
            try:
                for number in range(500):
                    answer: Any = client.ask(command("true", key=f"k{number}", environment={"PAD": b"x" * 1_000}))
                    acknowledged.append(answer.id)
            except TqError as error:
                failure = error
        assert failure.code in ("unknown", "unreachable"), failure
        assert server.process.wait(30) == 74
        assert acknowledged
        healthy = ServerProcess(tmp_path)
        healthy.start()
        try:
            with healthy.client() as client:
                for job in acknowledged:
                    client.ask(Get(job))
        finally:
            healthy.kill()
    finally:
        server.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_somebody_elses_directory_is_refused(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        server.stop()
        os.chown(server.data, 12_345, 12_345)
        try:
            done = server.run()
        finally:
            os.chown(server.data, 0, 0)

        assert done.returncode == 78
        assert "belongs to user 12345" in done.stderr


def test_where_too_few_files_may_be_open_no_server_starts_and_nothing_is_made(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, before="ulimit -n 99")
    refused = server.run()
    assert refused.returncode == 78
    assert "a server needs 100" in refused.stderr
    assert "hint: raise it: ulimit -n" in refused.stderr
    assert not server.data.exists()


def test_with_the_fewest_files_a_server_serves_many_and_its_store_has_enough(tmp_path: Path) -> None:
    """Its store makes hundreds of tables meanwhile, while more connections wait than there are places."""
    with ExitStack() as clients:
        server = ServerProcess(tmp_path, before="ulimit -n 100")
        server.program = "tests.support.small_server"
        server.start()
        clients.callback(server.kill)
        asked = [clients.enter_context(server.client()) for _ in range(14)]  # one token has no more
        late = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(10)]
        for connection in late:
            clients.callback(connection.close)
        for number in range(300):
            asked[number % 14].ask(
                command("true", key=f"k{number}", environment={"NOISE": os.urandom(8_000).hex().encode()})
            )
        assert max(int(path.stem) for path in (server.data / "db").glob("*.sst")) > 100
        assert asked[0].ask(Get("300")).value["id"] == "300"
        assert asked[13].ask(Get("1")).value["id"] == "1"
        assert server.stop() == 0
        assert "Too many open files" not in server.log()


@pytest.mark.parametrize("options", [(), ("--data", "{data}")], ids=["found", "of a directory"])
def test_a_worker_follows_its_server_to_another_port_after_a_kill(tmp_path: Path, options: tuple[str, ...]) -> None:
    with running_server(tmp_path) as server:
        words = [word.format(data=server.data) for word in options]
        with running_worker(server, *words):
            for _ in range(2):
                with server.client() as client:
                    made = client.ask(command("true"))
                    assert isinstance(made, Submitted)
                    wait_until(lambda: client.ask(Get(made.id)).value["state"] == "succeeded")  # noqa: B023
                server.kill()
                server.port = free_port()
                server.start()
