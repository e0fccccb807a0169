"""How a task runs, through the real program: what it returns, where it writes, how it is stopped, and what is left."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.launcher import marker, wait_count, wait_gone
from tests.support.launcher import processes as marked
from tests.support.town import Town, town

GRANDCHILDREN = 50


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with town(tmp_path_factory.mktemp("town")) as here:
        here.worker()
        yield here


def family(mark: str) -> str:
    """Return a shell's text: grandchildren in sessions of their own, without environment, half of them deaf to TERM."""
    return (
        f"for i in $(seq {GRANDCHILDREN // 2}); do env -i setsid sleep {mark} & "
        f"env -i setsid sh -c \"trap '' TERM; sleep {mark}; :\" & done; echo ready; wait"
    )


def test_what_a_task_writes_to_tq_result_is_its_value(here: Town) -> None:
    job = here.submit("sh", "-c", 'echo \'{"loss": 0.5, "steps": [1, 2]}\' > $TQ_RESULT')
    assert here.wait(job) == 0
    assert json.loads(here.tq("result", job).out)["value"] == {"loss": 0.5, "steps": [1, 2]}
    assert json.loads(here.tq("result", here.submit("true")).out)["value"] is None


def test_what_is_no_value_fails_the_task_and_says_why(here: Town) -> None:
    job = here.submit("sh", "-c", "echo nonsense > $TQ_RESULT", options=["--retries", "0"])
    assert here.wait(job) != 0
    shown = here.show(job)
    assert (shown["state"], shown["cause"], shown["exit_code"]) == ("dead", "bad_result", 0)
    assert "TQ_RESULT is not JSON" in shown["usage"]["error"]


def test_a_file_takes_the_output_and_a_directory_is_gone_after_the_task(here: Town) -> None:
    text = 'mkdir -p "$TQ_TMPDIR/a/b"; touch "$TQ_TMPDIR/a/b/c"; echo "$TQ_TMPDIR"'
    job = here.submit("sh", "-c", text, options=["--tmpdir", "--stdout", "out.%t"])
    assert here.wait(job) == 0
    directory = Path((here.place / f"out.{job}").read_text().strip())
    assert directory.is_relative_to(here.place / "worker")
    processes.until(lambda: not directory.exists(), "it is removed")
    assert here.tq("logs", job).out == ""


def test_a_cancel_may_bring_its_signal_and_kill_ends_what_is_deaf(here: Town) -> None:
    text = "trap 'exit 3' USR1; trap '' TERM; echo ready; while :; do sleep 0.05; done"
    first, second = (here.submit("sh", "-c", text, options=["--kill-after", "1h"]) for _ in range(2))
    for job in (first, second):
        with here.client() as client:
            processes.until(lambda job=job: here.tq("logs", job).out == "ready\n", "it is ready")
            assert here.task(client, job)["phase"] == "started"
    assert here.tq("cancel", "--signal", "usr1", first).status == 0
    assert here.tq("cancel", second).status == 0
    assert here.tq("cancel", "--signal", "KILL", second).status == 0
    assert here.wait(first, second) != 0
    assert [here.show(job)["exit_code"] for job in (first, second)] == [3, None]
    assert here.show(second)["signal"] == signal.SIGKILL


def test_of_a_cancelled_task_with_fifty_grandchildren_nothing_lives(here: Town) -> None:
    mark = marker()
    job = here.submit("sh", "-c", family(mark))
    wait_count(mark, GRANDCHILDREN)
    assert here.tq("cancel", job).status == 0
    assert here.wait(job) == 130
    assert marked(mark) == []


def test_what_worker_launcher_and_sentry_left_when_all_were_killed_the_next_worker_kills(here: Town) -> None:
    level = json.loads(here.tq("workers", "-o", "json").out)["items"][0]["level"]
    if level != "cgroup":
        pytest.skip(f"the level here is {level}: without an environment nobody knows whose they are")
    mark = marker()
    here.submit("sh", "-c", family(mark), options=["--hold"])
    here.tq("release", "last")
    wait_count(mark, GRANDCHILDREN)
    old = here.workers[0]
    launcher = old.launcher
    mains = processes.children(launcher)
    for pid in (old.pid, launcher):  # else each of them would kill what the other, or the sentry, leaves
        os.kill(pid, signal.SIGSTOP)
        processes.until(lambda pid=pid: processes.is_frozen(pid), "it stops")
    for pid in (processes.parent(launcher), launcher, *mains, old.pid):
        os.kill(pid, signal.SIGKILL)
    old.process.wait()
    assert marked(mark) != []
    here.tq("cancel", "last")
    here.worker()
    wait_gone(mark)
