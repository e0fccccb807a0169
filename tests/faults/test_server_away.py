"""The server is away for seconds to hours: what runs ends, its results and output lie on the worker's disk.

Nothing is lost, over restarts in a row, the death of a worker, or another one in its directory.
How long it is away changes nothing, so these tests do not wait: what they need has happened when they see it.
"""

import os
import signal
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.proxy import Way, proxied
from tests.support.town import Town, WorkerProcess, town

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
LINES = 3_000  # more than goes along with the end of a task


def talker(place: Path, name: str = "flag", code: int = 0) -> str:
    """Return a task that notes each run, waits for a flag, writes a lot to both streams, and ends."""
    return (
        f"echo $TQ_TASK.$TQ_ATTEMPT >>{place}/ran; while ! test -e {place}/{name}; do sleep 0.02; done;"
        f" seq {LINES}; seq {LINES} >&2; exit {code}"
    )


def output() -> str:
    return "".join(f"{number}\n" for number in range(1, LINES + 1))


def runs(here: Town) -> list[str]:
    return sorted((here.place / "ran").read_text().split())


def spool(here: Town, name: str, number: int = 1) -> list[Path]:
    """Return what lies in a worker's spool."""
    directory = "worker" if number == 1 else f"worker-{number}"
    path = here.place / name / "tq" / directory / "spool"
    return [one for one in path.iterdir() if one.name.isdecimal()] if path.exists() else []


def begin(here: Town, *options: str, name: str = "flag", code: int = 0) -> str:
    job = here.submit("sh", "-c", talker(here.place, name, code), options=options)
    here.until_started(job)
    return job


def assert_once(here: Town, job: str, code: int = 0) -> None:
    """The task has run once, ended once, and all that it wrote is there."""
    assert here.wait(job) == code
    shown = here.show(job)
    assert (shown["attempt"], shown["losses"], shown["history"]) == (1, 0, [])
    done = here.tq("logs", job)
    assert (done.out, done.err) == (output(), output())


def test_results_and_output_of_a_worker_that_dies_while_the_server_is_away_are_presented_by_the_next(
    tmp_path: Path,
) -> None:
    with town(tmp_path, "--heartbeat", "1h") as here:
        worker = here.worker(slots=1)
        job = begin(here, "--crash-limit", "1", "--retries", "0", code=3)
        here.server.kill()
        (tmp_path / "flag").touch()
        processes.until(lambda: spool(here, "worker"), "its result is on the disk")
        worker.kill()
        here.server.start()
        here.worker(slots=1)
        assert_once(here, job, code=3)
        assert runs(here) == [f"{job}.1"]
        processes.until(lambda: not spool(here, "worker"), "what is acknowledged goes from the disk")


def test_a_server_that_restarts_again_and_again_costs_nothing(tmp_path: Path) -> None:
    with town(tmp_path, "--heartbeat", "1s") as here:
        worker = here.worker(slots=2)
        first, second = begin(here, name="one"), begin(here, name="two")
        for number in range(6):
            here.server.kill()
            if number == 2:
                (tmp_path / "one").touch()
                processes.until(lambda: spool(here, "worker"), "its result is on the disk")
            here.server.start()  # killed again while the worker waits, dials, says hello, or lists what it holds
        (tmp_path / "two").touch()
        for job in (first, second):
            assert_once(here, job)
        assert runs(here) == sorted([f"{first}.1", f"{second}.1"])
        assert here.show(second)["worker"] == worker.id
        assert here.counter("losses") == 0
        here.check_store()


@pytest.mark.parametrize("way", [Way.DOWN, Way.UP], ids=["the answer is lost", "the list is lost"])
def test_a_server_that_is_killed_during_reconciliation_costs_nothing(tmp_path: Path, way: Way) -> None:
    with town(tmp_path, "--heartbeat", "1s") as here, proxied(here.server.port) as line:
        here.worker("far", slots=2, environ=here.elsewhere(line.url))
        ended, alive = begin(here, name="one"), begin(here, name="two")
        here.server.kill()
        (tmp_path / "one").touch()
        processes.until(lambda: spool(here, "far"), "its result is on the disk")
        accepted = line.accepted
        line.delay(0.1)  # so that the hello, the list, its answer and the reports are on their way one after the other
        here.server.start()
        processes.until(lambda: line.accepted > accepted, "it dials")
        line.black_hole(way)
        here.server.kill()
        here.server.start()
        line.heal()
        (tmp_path / "two").touch()
        for job in (ended, alive):
            assert_once(here, job)
        assert runs(here) == sorted([f"{ended}.1", f"{alive}.1"])


def test_what_a_worker_handed_back_unheard_is_uncharged_also_where_its_successor_says_so(tmp_path: Path) -> None:
    with town(tmp_path, "--heartbeat", "1h") as here:
        worker = here.worker("worker", "--drain-time", "100ms", slots=1)
        job = begin(here, "--crash-limit", "1")
        here.server.kill()
        assert worker.stop() == 0  # drains: stops the task, and cannot say so
        assert len(spool(here, "worker")) == 1
        here.server.start()
        (tmp_path / "flag").touch()
        here.worker(slots=1)
        assert here.wait(job) == 0
        shown = here.show(job)
        assert (shown["attempt"], shown["losses"], shown["failures"]) == (2, 0, 0)


def beside(here: Town) -> tuple[WorkerProcess, WorkerProcess]:
    """Start two workers on one state directory."""
    first = here.worker("state", slots=1)
    second = WorkerProcess(here, "state", ["--slots", "1"])
    here.workers.append(second)
    second.says(r"(?s)worker_started.* directory=\S*worker-2")
    second.says(r"(?s)directory=\S*worker-2.* connected ")
    return first, second


def test_of_two_workers_that_died_the_first_to_come_back_presents_what_both_have_left(tmp_path: Path) -> None:
    with town(tmp_path, "--heartbeat", "1h") as here:
        workers = beside(here)
        jobs = [begin(here), begin(here)]
        here.server.kill()
        (tmp_path / "flag").touch()
        for number in (1, 2):
            processes.until(lambda number=number: spool(here, "state", number), "its result is on the disk")
        for worker in workers:
            worker.kill()
        here.server.start()
        heir = here.worker("state", slots=1)
        heir.says("taken_over")
        for job in jobs:
            assert_once(here, job)
        assert runs(here) == sorted(f"{job}.1" for job in jobs)


def test_a_directory_in_which_somebody_lives_is_left_alone(tmp_path: Path) -> None:
    with town(tmp_path, "--heartbeat", "1h") as here:
        first, second = beside(here)
        jobs = [begin(here), begin(here)]
        first.kill()
        processes.until(lambda: len(here.running(*jobs[:1])) + len(here.running(*jobs[1:])) == 1, "one of them runs")
        successor = here.worker("state", slots=1)
        assert "taken_over" not in successor.text()
        (tmp_path / "flag").touch()
        assert here.wait(*jobs) == 0
        assert sorted(here.show(job)["attempt"] for job in jobs) == [1, 2]
        assert processes.is_alive(second.pid)


def test_a_worker_that_returns_after_its_work_was_given_away_changes_nothing(tmp_path: Path) -> None:
    """It ended the task while it was away, and brings the result when another one has ended it, too."""
    with town(tmp_path, "--heartbeat", "200ms") as here, proxied(here.server.port) as line:
        here.worker("far", slots=1, environ=here.elsewhere(line.url))
        job = begin(here)
        line.black_hole()
        other = here.worker("near", slots=1)
        processes.until(lambda: runs(here) == [f"{job}.1", f"{job}.2"], "it runs elsewhere")
        (tmp_path / "flag").touch()
        assert here.wait(job) == 0
        before, logs = here.show(job), here.tq("logs", job).out
        processes.until(lambda: spool(here, "far"), "the first one's result is on its disk")
        line.heal()
        processes.until(lambda: not spool(here, "far"), "it is acknowledged, and goes from the disk")
        assert here.counter("stale_reports") >= 1
        assert here.show(job) == before
        assert (before["worker"], here.tq("logs", job).out) == (other.id, logs)


def test_a_worker_stopped_for_good_in_the_middle_of_writing_leaves_whole_files_only(tmp_path: Path) -> None:
    with town(tmp_path, "--heartbeat", "1h") as here:
        worker = here.worker(slots=8)
        jobs = [begin(here) for _ in range(8)]
        here.server.kill()
        (tmp_path / "flag").touch()
        processes.until(lambda: spool(here, "worker"), "the first result is on the disk")
        os.kill(worker.pid, signal.SIGKILL)
        worker.process.wait()
        here.server.start()
        here.worker(slots=8)
        assert here.wait(*jobs) == 0
        for job in jobs:
            shown = here.show(job)
            assert shown["attempt"] == 1 + shown["losses"]
            assert here.tq("logs", job).out == output()
