"""A worker is drained from afar, or leaves by itself: nothing is lost, nothing is charged, whoever dies on the way."""

import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.proxy import proxied
from tests.support.town import Town, town
from tq.core.vocabulary import Workers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def waiter(place: Path) -> str:
    """Return a task that notes its attempt and waits for a flag; TERM ends it."""
    return f"echo $$ >{place}/pid.$TQ_ATTEMPT; while ! test -e {place}/flag; do sleep 0.02; done"


def started(here: Town, attempt: int) -> int:
    path = here.place / f"pid.{attempt}"
    return int(processes.until(lambda: path.exists() and path.read_text(), f"attempt {attempt} has started"))


def state(here: Town, worker: str) -> str:
    with here.client() as client:
        page = client.ask(Workers())
    return next((item["state"] for item in page.items if item["id"] == worker), "gone")


def test_what_waits_goes_elsewhere_and_what_runs_is_stopped_at_the_deadline_uncharged(tmp_path: Path) -> None:
    with town(tmp_path, "--heartbeat", "1s") as here:
        worker = here.worker("first", slots=1)
        job = here.submit("sh", "-c", waiter(tmp_path))
        first = started(here, 1)
        waiting = here.submit("true")
        done = here.tq("drain", worker.id, "--deadline", "300ms", "--wait")
        assert (done.status, processes.is_alive(first)) == (0, False), done
        assert f"{worker.id} is empty" in done.err
        assert state(here, worker.id) == "draining"

        other = here.worker("other", slots=2)
        started(here, 2)
        (tmp_path / "flag").touch()
        assert here.wait(job, waiting) == 0
        shown = here.show(job)
        assert (shown["attempt"], shown["failures"], shown["losses"], shown["worker"]) == (2, 0, 0, other.id)
        assert here.counter("losses") == 0
        assert here.tq("undrain", worker.id).status == 0
        processes.until(lambda: state(here, worker.id) == "up", "it goes on")


def test_without_a_deadline_what_runs_may_end(tmp_path: Path) -> None:
    with town(tmp_path) as here:
        worker = here.worker(slots=1)
        job = here.submit("sh", "-c", waiter(tmp_path))
        first = started(here, 1)
        assert here.tq("drain", worker.id).status == 0
        after = here.submit("true")
        assert processes.is_alive(first)
        (tmp_path / "flag").touch()
        assert here.wait(job) == 0
        assert here.show(job)["attempt"] == 1
        shown = here.show(after)
        assert (shown["state"], shown["reason"]) == ("queued", "all workers are draining")
        assert here.tq("undrain", worker.id).status == 0
        assert here.wait(after) == 0


def test_the_deadline_holds_while_the_worker_is_cut_off_and_over_a_restart_of_the_server(tmp_path: Path) -> None:
    with town(tmp_path, "--heartbeat", "1s") as here, proxied(here.server.port) as line:
        worker = here.worker("far", slots=1, environ=here.elsewhere(line.url))
        job = here.submit("sh", "-c", waiter(tmp_path))
        first = started(here, 1)
        assert here.tq("drain", worker.id, "--deadline", "1500ms").status == 0
        line.refuse()
        here.server.kill()
        here.server.start()
        processes.until(lambda: not processes.is_alive(first), "it is stopped all the same")
        line.heal()
        processes.until(lambda: state(here, worker.id) == "draining", "it is back, and still drained")
        processes.until(lambda: here.show(job)["state"] == "queued", "its task waits again")
        assert here.show(job)["losses"] == 0
        assert here.tq("undrain", worker.id).status == 0
        started(here, 2)
        (tmp_path / "flag").touch()
        assert here.wait(job) == 0


def test_a_worker_that_is_gone_or_was_never_there_is_an_error(tmp_path: Path) -> None:
    with town(tmp_path) as here:
        worker = here.worker()
        name = worker.id
        assert worker.stop() == 0
        for who in (name, "w1234", "elsewhere"):
            done = here.tq("drain", who, "--wait")
            assert (done.status, done.err) == (1, f"tq: no worker {who!r} is known\nhint: tq workers\n")


def test_a_worker_leaves_after_its_last_task_and_the_next_one_gets_the_rest(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    with town(tmp_path) as here:
        job = here.submit("sh", "-c", f"echo $TQ_WORKER >>{ran}", options=("--array", "1-10"))
        for number in range(2):
            worker = here.worker(f"worker{number}", "--max-tasks", "4", slots=2)
            assert worker.process.wait(processes.PATIENCE_S) == 0
        assert here.wait(job, timeout="0.1") == 124
        here.worker("last")
        assert here.wait(job) == 0
        counts = Counter(ran.read_text().split())
        assert list(counts.items()) == list(zip((worker.id for worker in here.workers), (4, 4, 2), strict=True))
        assert (here.counter("losses"), here.counter("workers_lost")) == (0, 2)  # a goodbye is no loss of a task


def test_a_worker_leaves_when_it_was_idle_for_long_and_not_before(tmp_path: Path) -> None:
    with town(tmp_path) as here:
        job = here.submit("sh", "-c", waiter(tmp_path))
        worker = here.worker("idle", "--idle-timeout", "2s")
        started(here, 1)
        long = here.submit("sleep", "2.5")
        assert here.wait(long) == 0
        assert worker.process.poll() is None, "it runs a task"
        (tmp_path / "flag").touch()
        assert here.wait(job) == 0
        assert worker.process.wait(processes.PATIENCE_S) == 0
        assert state(here, worker.id) == "gone"


def test_killing_up_ends_server_and_worker_and_the_next_up_goes_on(tmp_path: Path) -> None:
    here = Town(tmp_path)
    log = tmp_path / "up.log"
    with log.open("wb") as err:
        up = here.popen("up", "--listen", "127.0.0.1:0", "--drain-time", "1s", "--slots", "1", stdout=err, stderr=err)
        try:
            processes.until(lambda: b" connected " in log.read_bytes(), "it is up")
            job = here.submit("sh", "-c", waiter(tmp_path))
            started(here, 1)
            pids = processes.tree(up.pid)
            assert len(pids) >= 4
        finally:
            up.send_signal(signal.SIGKILL)
            up.wait()
        processes.until(lambda: not any(map(processes.is_alive, pids)), "nothing of it is left")
        again = here.popen("up", "--listen", "127.0.0.1:0", "--slots", "1", stdout=err, stderr=err)
        try:
            started(here, 2)
            (tmp_path / "flag").touch()
            assert here.wait(job) == 0
            assert here.show(job)["failures"] == 0
        finally:
            pids = processes.tree(again.pid)
            again.send_signal(signal.SIGINT)
            assert again.wait(processes.PATIENCE_S) == 0
    processes.until(lambda: not any(map(processes.is_alive, pids)), "nothing of it is left")
