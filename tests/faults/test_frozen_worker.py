"""A worker that is frozen for longer than three beats: its work runs elsewhere, or, where nobody else took it, goes on.

TQ_FREEZE_S sets how long it stays frozen once it is lost, TQ_FREEZE_BEAT the heartbeat: `30` and `5s` are the real ones.
"""

import os
import signal
import time
from pathlib import Path
from typing import Final

import pytest

from tests.support import processes
from tests.support.town import town

pytestmark = pytest.mark.slow
BEAT: Final = os.environ.get("TQ_FREEZE_BEAT", "200ms")
FREEZE_S: Final = float(os.environ.get("TQ_FREEZE_S", "0"))


def script(place: Path) -> str:
    """Return a task that notes its pid and who it is, and waits for a flag; TERM ends it with 9, a note and output."""
    return (
        f"trap 'echo term-$TQ_ATTEMPT | tee -a {place}/notes; exit 9' TERM;"
        f" echo $$ >{place}/pid.$TQ_ATTEMPT;"
        f" while ! test -e {place}/flag.$TQ_ATTEMPT; do sleep 0.05; done; echo end-$TQ_ATTEMPT | tee -a {place}/notes"
    )


def frozen_long_enough(begun_s: float) -> None:
    time.sleep(max(0.0, begun_s + FREEZE_S - time.monotonic()))  # the length of the freeze is what is tested


@pytest.mark.timeout(120 + 3 * FREEZE_S)
def test_a_frozen_tree_loses_its_task_and_the_thawed_copy_is_killed_and_changes_nothing(tmp_path: Path) -> None:
    with town(tmp_path, "--heartbeat", BEAT) as here:
        frozen = here.worker("frozen", slots=1)
        job = here.submit("sh", "-c", script(tmp_path))
        here.until_started(job)
        first = int(processes.until(lambda: read(tmp_path / "pid.1"), "the first copy has noted its pid"))
        begun_s = time.monotonic()
        pids = processes.freeze_tree(frozen.pid)
        assert first in pids

        other = here.worker("other", slots=1)
        processes.until(lambda: read(tmp_path / "pid.2"), "it runs elsewhere")
        (tmp_path / "flag.2").touch()
        assert here.wait(job) == 0
        before = here.show(job)
        assert (before["attempt"], before["losses"], before["worker"]) == (2, 1, other.id)
        assert here.counter("stale_reports") == 0
        frozen_long_enough(begun_s)

        assert processes.is_frozen(first)
        processes.thaw(pids)
        processes.until(lambda: not processes.is_alive(first), "the thawed copy is killed")
        # Once for what it claims to hold, once for its report.
        processes.until(lambda: here.counter("stale_reports") >= 2, "its report is counted")
        assert here.show(job) == before
        assert here.tq("logs", job).out == "end-2\n"
        assert (tmp_path / "notes").read_text() == "end-2\nterm-1\n"
        assert not (tmp_path / "pid.3").exists()
        again = here.submit("true")  # both are of use again
        assert here.wait(again) == 0
        frozen.says(r"(?s) connected .* connected ")


@pytest.mark.timeout(120 + 3 * FREEZE_S)
def test_where_nobody_else_is_the_same_process_ends_the_task_and_the_loss_is_taken_back(tmp_path: Path) -> None:
    with town(tmp_path, "--heartbeat", BEAT) as here:
        worker = here.worker(slots=1)
        job = here.submit("sh", "-c", script(tmp_path))
        here.until_started(job)
        pid = int(processes.until(lambda: read(tmp_path / "pid.1"), "it has noted its pid"))
        identity = processes.started(pid)
        begun_s = time.monotonic()
        worker.process.send_signal(signal.SIGSTOP)
        with here.client() as client:
            processes.until(lambda: here.task(client, job)["state"] == "queued", "its worker is lost")
            assert here.task(client, job)["losses"] == 1
        frozen_long_enough(begun_s)

        worker.process.send_signal(signal.SIGCONT)
        processes.until(lambda: here.counter("claims") == 1, "it claims the task")
        assert processes.started(pid) == identity
        (tmp_path / "flag.1").touch()
        assert here.wait(job) == 0
        shown = here.show(job)
        assert (shown["attempt"], shown["losses"], shown["worker"]) == (1, 0, worker.id)
        assert (tmp_path / "notes").read_text() == "end-1\n"


@pytest.mark.timeout(120 + 3 * FREEZE_S)
def test_a_task_that_ended_behind_a_frozen_worker_is_reported_and_not_run_again(tmp_path: Path) -> None:
    with town(tmp_path, "--heartbeat", BEAT) as here:
        worker = here.worker(slots=1)
        job = here.submit("sh", "-c", script(tmp_path))
        here.until_started(job)
        pid = int(processes.until(lambda: read(tmp_path / "pid.1"), "it has noted its pid"))
        worker.process.send_signal(signal.SIGSTOP)
        (tmp_path / "flag.1").touch()
        processes.until(lambda: not processes.is_alive(pid), "it has ended")
        with here.client() as client:
            processes.until(lambda: here.task(client, job)["state"] == "queued", "its worker is lost")

        worker.process.send_signal(signal.SIGCONT)
        assert here.wait(job) == 0
        shown = here.show(job)
        assert (shown["attempt"], shown["losses"]) == (1, 0)
        assert here.tq("logs", job).out == "end-1\n"


def read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
