"""A worker whose network is cut: its tasks run elsewhere after three beats, or end where they are; reported once.

TQ_CUT_S sets how long the cut lasts at least, TQ_CUT_BEAT the heartbeat: `20` and `5s` are the real ones. The main
promises are shown on a real link, too, where network namespaces are to be had.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.support import processes
from tests.support.link import Link, linked
from tests.support.proxy import Proxy, Way, proxied
from tests.support.town import Town, WorkerProcess, town

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
BEAT: Final = os.environ.get("TQ_CUT_BEAT", "500ms")
CUT_S: Final = float(os.environ.get("TQ_CUT_S", "0"))


def script(place: Path) -> str:
    """Return a task that notes who it is and that it lives, waits for a flag, and notes its end."""
    return (
        f"echo $$ >{place}/pid.$TQ_ATTEMPT; while ! test -e {place}/flag.$TQ_ATTEMPT; do"
        f" echo $TQ_ATTEMPT >>{place}/alive; sleep 0.02; done; echo end-$TQ_ATTEMPT | tee -a {place}/notes"
    )


class Cut:
    """A town with one worker behind a network that can be cut."""

    def __init__(self, here: Town, line: Proxy | Link) -> None:
        self.here = here
        self.line = line
        self.place = here.place

    def far_worker(self, slots: int = 1) -> WorkerProcess:
        """Start the worker behind the bad network."""
        before = self.line.far if isinstance(self.line, Link) else ()
        return self.here.worker("far", slots=slots, environ=self.here.elsewhere(self.line.url), before=before)

    def run(self, *options: str) -> tuple[str, int]:
        """Submit the task, and wait until its first attempt runs; return its id and its pid."""
        job = self.here.submit("sh", "-c", script(self.place), options=options)
        self.here.until_started(job)
        return job, self.pid(1)

    def pid(self, attempt: int) -> int:
        """Return the pid of an attempt; waited for."""
        path = self.place / f"pid.{attempt}"
        return int(processes.until(lambda: path.exists() and path.read_text(), f"attempt {attempt} has noted its pid"))

    def let_end(self, attempt: int) -> None:
        """Let an attempt end."""
        (self.place / f"flag.{attempt}").touch()

    def notes(self) -> list[str]:
        """Return which attempts came to their ends."""
        return (self.place / "notes").read_text().split()

    def until_lost(self, job: str) -> None:
        """Wait until the server has given the task up for lost."""
        with self.here.client() as client:
            processes.until(lambda: self.here.task(client, job)["state"] == "queued", "its worker is lost")

    def long_enough(self, begun_s: float) -> None:
        """Wait until the cut has lasted as long as was asked for."""
        time.sleep(max(0.0, begun_s + CUT_S - time.monotonic()))  # the length of the cut is what is tested


@contextmanager
def cut_town(place: Path, beat: str = BEAT) -> Iterator[Cut]:
    with town(place, "--heartbeat", beat) as here, proxied(here.server.port) as line:
        yield Cut(here, line)


@contextmanager
def linked_town(place: Path) -> Iterator[Cut]:
    with linked() as link, town(place, "--heartbeat", BEAT, *link.listen) as here:
        yield Cut(here, link)


Towns = Callable[[Path], AbstractContextManager[Cut]]
ON_EITHER: Final = pytest.mark.parametrize("towns", [cut_town, linked_town], ids=["black hole", "link down"])


@pytest.mark.parametrize(
    "towns, ways",
    [(cut_town, (Way.BOTH,)), (cut_town, (Way.UP,)), (cut_town, (Way.DOWN,)), (linked_town, ())],
    ids=["black hole", "nothing up", "nothing down", "link down"],
)
def test_a_cut_task_runs_elsewhere_and_the_first_copy_is_stopped_and_reports_nothing(
    tmp_path: Path, towns: Towns, ways: tuple[Way, ...]
) -> None:
    with towns(tmp_path) as cut:
        cut.far_worker()
        job, first = cut.run()
        begun_s = time.monotonic()
        cut.line.black_hole(*ways)
        other = cut.here.worker("other", slots=1)
        cut.pid(2)
        assert processes.is_alive(first), "it runs on: nobody asked for anything else"
        cut.let_end(2)
        assert cut.here.wait(job) == 0
        before = cut.here.show(job)
        assert (before["attempt"], before["losses"], before["worker"]) == (2, 1, other.id)
        cut.long_enough(begun_s)

        cut.line.heal()
        processes.until(lambda: not processes.is_alive(first), "the first copy is stopped")
        processes.until(lambda: cut.here.counter("stale_reports") >= 1, "what it says is counted")
        assert cut.here.show(job) == before
        assert cut.here.tq("logs", job).out == "end-2\n"
        assert cut.notes() == ["end-2"]


@ON_EITHER
def test_where_nobody_else_is_the_same_process_ends_the_task_during_the_cut_and_it_is_reported_once(
    tmp_path: Path, towns: Towns
) -> None:
    with towns(tmp_path) as cut:
        worker = cut.far_worker()
        job, first = cut.run()
        begun_s = time.monotonic()
        cut.line.black_hole()
        cut.until_lost(job)
        cut.let_end(1)
        processes.until(lambda: not processes.is_alive(first), "it has ended")
        cut.long_enough(begun_s)

        cut.line.heal()
        assert cut.here.wait(job) == 0
        shown = cut.here.show(job)
        assert (shown["attempt"], shown["losses"], shown["worker"], shown["history"]) == (1, 0, worker.id, [])
        assert cut.here.tq("logs", job).out == "end-1\n"
        assert cut.notes() == ["end-1"]


def test_where_nobody_else_is_the_same_process_goes_on_after_the_cut(tmp_path: Path) -> None:
    with cut_town(tmp_path) as cut:
        worker = cut.far_worker()
        job, first = cut.run()
        identity = processes.started(first)
        begun_s = time.monotonic()
        cut.line.black_hole()
        cut.until_lost(job)
        cut.long_enough(begun_s)
        cut.line.heal()
        processes.until(lambda: cut.here.counter("claims") == 1, "it claims the task")
        assert processes.started(first) == identity
        cut.let_end(1)
        assert cut.here.wait(job) == 0
        shown = cut.here.show(job)
        assert (shown["attempt"], shown["losses"], shown["worker"]) == (1, 0, worker.id)


@ON_EITHER
def test_if_cut_stop_leaves_no_second_copy(tmp_path: Path, towns: Towns) -> None:
    with towns(tmp_path) as cut:
        cut.far_worker()
        job, first = cut.run("--if-cut", "stop")
        begun_s = time.monotonic()
        cut.line.black_hole()
        cut.here.worker("other", slots=1)
        cut.pid(2)
        assert not processes.is_alive(first), "the first copy was killed before the second one began"
        alive = (tmp_path / "alive").read_text().split()
        assert alive == sorted(alive), "no first copy said anything once a second one had"
        cut.let_end(2)
        assert cut.here.wait(job) == 0
        cut.long_enough(begun_s)
        before = cut.here.show(job)
        cut.line.heal()
        processes.until(lambda: cut.here.counter("stale_reports") >= 1, "what it hands back is counted")
        assert cut.here.show(job) == before
        assert cut.notes() == ["end-2"]


def test_nor_where_the_server_comes_back_with_beats_a_thirtieth_as_long(tmp_path: Path) -> None:
    """What is cut off knows the old ones, and runs on by them."""
    with cut_town(tmp_path, beat="3s") as cut:  # what is cut off runs on for longer than a start waits at least
        cut.far_worker()
        job, first = cut.run("--if-cut", "stop")
        cut.line.black_hole()
        cut.here.server.kill()
        cut.here.server.options = ("--heartbeat", "100ms")
        cut.here.server.start()
        cut.here.worker("other", slots=1)
        cut.pid(2)
        assert not processes.is_alive(first)
        alive = (tmp_path / "alive").read_text().split()
        assert alive == sorted(alive), "no first copy said anything once a second one had"
        cut.let_end(2)
        assert cut.here.wait(job) == 0
        assert cut.notes() == ["end-2"]


def test_if_cut_stop_where_nobody_else_is_starts_anew_after_the_cut_uncharged(tmp_path: Path) -> None:
    with cut_town(tmp_path) as cut:
        cut.far_worker()
        job, first = cut.run("--if-cut", "stop")
        cut.line.black_hole()
        processes.until(lambda: not processes.is_alive(first), "it is killed")
        cut.until_lost(job)
        cut.line.heal()
        cut.pid(2)
        cut.let_end(2)
        assert cut.here.wait(job) == 0
        shown = cut.here.show(job)
        assert (shown["attempt"], shown["failures"], shown["losses"]) == (2, 0, 0)
        assert cut.notes() == ["end-2"]


def test_if_cut_stop_also_kills_beside_a_frozen_worker_whose_launcher_lives(tmp_path: Path) -> None:
    with cut_town(tmp_path) as cut:
        worker = cut.far_worker()
        job, first = cut.run("--if-cut", "stop")
        os.kill(worker.pid, 19)  # SIGSTOP: the worker alone; its launcher and its task run on
        cut.here.worker("other", slots=1)
        cut.pid(2)
        assert not processes.is_alive(first)
        cut.let_end(2)
        assert cut.here.wait(job) == 0
        assert cut.notes() == ["end-2"]


def test_a_network_that_is_only_slow_or_resets_costs_no_attempt(tmp_path: Path) -> None:
    with cut_town(tmp_path, beat="3s") as cut:
        worker = cut.far_worker()
        job, _ = cut.run("--if-cut", "stop")
        cut.line.delay(0.02)
        for _ in range(3):
            before = len(worker.text().split(" connected "))
            cut.line.reset()
            processes.until(lambda n=before: len(worker.text().split(" connected ")) > n, "it is connected again")
        cut.let_end(1)
        assert cut.here.wait(job) == 0
        assert cut.here.show(job)["attempt"] == 1
        assert cut.notes() == ["end-1"]
