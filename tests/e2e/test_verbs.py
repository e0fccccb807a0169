"""The verbs that act, typed as people type them, against a real server and worker."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.process import ServerProcess, running_server, running_worker, wait_until

Tq = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server(tmp_path_factory.mktemp("verbs")) as server, running_worker(server):
        yield server


@pytest.fixture
def tq(server: ServerProcess, tmp_path: Path) -> Tq:
    """Run tq and return exit status, stdout and stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "tq", *words],
            env=server.environ, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            timeout=60,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    return run


def submit(tq: Tq, *words: str) -> str:
    status, out, err = tq("submit", *words)
    assert status == 0, err
    return out.strip()


def result(tq: Tq, task: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(tq("result", task)[1])
    return found


def test_a_failed_job_is_retried_by_its_name_and_forgotten_by_its_tag(tq: Tq) -> None:
    job = submit(tq, "--name", "nightly", "--tag", "night", "--wait", "--", "true")
    status, out, err = tq("retry", "nightly")
    assert (status, out, err.splitlines()[0]) == (1, "", "tq: nothing to do: nightly: not failed")
    assert tq("retry", "nightly", "--force") == (0, "", "tq: 1 queued again\n")
    assert tq("wait", "nightly")[0] == 0
    assert (result(tq, job)["attempt"], result(tq, job)["exit_code"]) == (2, 0)
    assert tq("forget", "night") == (0, "", "tq: 1 forgotten\n")
    status, _, err = tq("show", job)
    assert (status, err) == (1, f"tq: there is no job {job}\nhint: tq ls\n")


def test_failed_members_alone_are_retried(tq: Tq, tmp_path: Path) -> None:
    command = f"test $TQ_MEMBER != 3 || test -e {tmp_path}/mended"
    array = submit(tq, "--retries", "0", "--array", "1-4", "--", "sh", "-c", command)
    assert tq("wait", array)[0] == 1
    assert tq("retry", "@failed", "--dry-run") == (0, "", "tq: nothing is done; without --dry-run: 1 queued again\n")
    (tmp_path / "mended").touch()
    assert tq("retry", "@failed") == (0, "", "tq: 1 queued again\n")
    assert tq("wait", array)[0] == 0
    assert [result(tq, f"{array}.{value}")["attempt"] for value in (1, 2, 3, 4)] == [1, 1, 2, 1]


def test_a_held_job_starts_when_it_is_released(tq: Tq) -> None:
    assert tq("queue", "pause", "--new", "slow")[0] == 0
    job = submit(tq, "--queue", "slow", "--", "true")
    assert tq("hold", job) == (0, "", "tq: 1 held\n")
    assert tq("queue", "resume", "slow")[0] == 0
    assert tq("wait", job, "--timeout", "100ms")[0] == 124
    assert json.loads(tq("show", job, "-o", "json")[1])["state"] == "held"
    assert tq("set", job, "--priority", "9") == (0, "", "tq: 1 changed\n")
    assert tq("release", job) == (0, "", "tq: 1 released\n")
    assert tq("wait", job)[0] == 0
    assert tq("hold", job)[0] == 1


def test_what_is_requeued_runs_again_uncharged(tq: Tq, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    script = f"echo x >> {begun}; while ! test -e {tmp_path}/go; do sleep 0.05; done"
    job = submit(tq, "--", "sh", "-c", script)
    wait_until(lambda: begun.exists() and begun.read_text().count("x") == 1)
    assert tq("requeue", job) == (0, "", "tq: 1 being stopped to run again\n")
    wait_until(lambda: begun.read_text().count("x") == 2)
    (tmp_path / "go").touch()
    assert tq("wait", job)[0] == 0
    shown = json.loads(tq("show", job, "-o", "json")[1])
    assert (shown["attempt"], shown["failures"]) == (2, 0)


def test_a_paused_queue_starts_nothing_and_says_so(tq: Tq) -> None:
    assert tq("queue", "pause", "--new", "builds")[0] == 0
    job = submit(tq, "--queue", "builds", "--", "true")
    assert "queue builds is paused" in tq("show", job)[1]
    shown = {item["id"]: item for item in json.loads(tq("queue", "ls", "-o", "json")[1])["items"]}
    assert shown["builds"] == {"id": "builds", "paused": True, "max": 0, "retries": -1, "counts": {"queued": 1}}
    assert tq("cancel", "--queue", "builds") == (0, "", "tq: 1 cancelled\n")
    assert tq("queue", "resume", "builds")[0] == 0


def test_many_need_a_yes_and_a_reader_that_goes_away_is_no_error(tq: Tq, server: ServerProcess) -> None:
    for _ in range(3):
        submit(tq, "--name", "many", "--queue", "nobodys", "--", "true")
    tq("wait", "many")
    assert tq("forget", "many")[0] == 2
    array = submit(tq, "--name", "many", "--array", "1-3", "--wait", "--", "seq", "20000")
    shell = f"'{sys.executable}' -P -m tq logs --prefix {array} | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], env={**os.environ, **server.environ}, capture_output=True, check=False)
    assert (done.stdout.decode(), done.stderr) == (f"{array}.1 out| 1\n141\n", b"")
    assert tq("forget", "many", "--yes") == (0, "", "tq: 4 forgotten\n")


def test_the_doctor_finds_a_healthy_server(tq: Tq) -> None:
    status, out, err = tq("doctor", "-o", "json")
    assert (status, err) == (0, "")
    found = {item["id"]: item["status"] for item in json.loads(out)["items"]}
    assert "fail" not in found.values()
    assert found["server"] == found["data"] == found["workers"] == "ok"


@pytest.mark.slow
def test_the_demo_ends_well_and_leaves_nothing(tmp_path: Path) -> None:
    environ = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ}
    environ |= {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "tq", "demo"], env=environ, capture_output=True, text=True, timeout=240, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "exit code 7" in done.stdout
    assert "(kill -9 " in done.stdout
    assert "state succeeded, attempt 1, losses 0" in done.stdout
    assert "== Done" in done.stdout
    assert list(tmp_path.iterdir()) == []
    for process in Path("/proc").glob("[0-9]*/environ"):
        try:
            assert f"HOME={tmp_path}".encode() not in process.read_bytes(), f"{process} is left over"
        except (PermissionError, FileNotFoundError, ProcessLookupError):
            continue
