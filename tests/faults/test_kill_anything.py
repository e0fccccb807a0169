"""KILL at any point: a worker, its launcher, both, a task, a client. What was lost runs again, and nothing lives on.

TQ_KILLS sets the number of kills in the random round (default 8), TQ_KILL_SEED its dice.
"""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.server.process import command
from tests.support import processes
from tests.support.town import Town, WorkerProcess, kill_quietly, town

KILLS: Final = int(os.environ.get("TQ_KILLS", "8"))
SEED: Final = int(os.environ.get("TQ_KILL_SEED", "1"))
BEAT: Final = "200ms"
ONCE: Final = ("--retries", "0")
pytestmark = pytest.mark.slow


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Town]:
    with town(tmp_path, "--heartbeat", BEAT) as made:
        yield made


def begin(here: Town, worker: WorkerProcess, *, name: str = "task") -> tuple[str, list[int]]:
    """Start a task with a child and a daemon, which ends at once in its second attempt; return the job and all pids."""
    script = f"test $TQ_ATTEMPT -gt 1 && exit 0; sleep 600 & setsid sleep 600 & echo $$ >{here.place}/{name}.pid; wait"
    job = here.submit("sh", "-c", script, options=ONCE)
    here.until_started(job)
    processes.until(lambda: len(here.running(job)) == 3, "the task and its two children run")
    return job, here.running(job)


def gone(pids: list[int]) -> bool:
    return not any(map(processes.is_alive, pids))


def test_a_killed_workers_processes_are_gone_and_its_task_runs_elsewhere(here: Town) -> None:
    worker = here.worker("first", slots=1)
    job, pids = begin(here, worker)
    launcher = worker.launcher
    other = here.worker("second", slots=1)
    worker.kill()
    processes.until(lambda: gone([launcher, *pids]), "the launcher ends what it ran, and itself")
    assert here.wait(job) == 0
    shown = here.show(job)
    assert (shown["attempt"], shown["losses"], shown["worker"]) == (2, 1, other.id)
    assert [entry["attempt"] for entry in shown["history"]] == [1]
    assert (shown["history"][0]["cause"], shown["history"][0]["charged"]) == ("lost", True)


def test_the_next_worker_on_the_directory_answers_for_a_killed_one_at_once(tmp_path: Path) -> None:
    """A beat of an hour: nobody counts it as lost in this test but its successor."""
    with town(tmp_path, "--heartbeat", "1h") as here:
        worker = here.worker(slots=1)
        job, pids = begin(here, worker)
        worker.kill()
        processes.until(lambda: gone(pids), "the launcher ends what it ran")
        successor = here.worker(slots=1)
        assert here.wait(job) == 0
        shown = here.show(job)
        assert (shown["attempt"], shown["losses"], shown["worker"]) == (2, 1, successor.id)


def test_the_next_worker_kills_what_was_left_when_worker_launcher_and_sentry_were_killed(here: Town) -> None:
    worker = here.worker(slots=1)
    job, pids = begin(here, worker)
    launcher = worker.launcher
    sentry = processes.parent(launcher)
    for pid in (sentry, launcher):
        os.kill(pid, signal.SIGSTOP)  # so that it cannot kill anything between the three
    worker.kill()
    for pid in (sentry, launcher):
        os.kill(pid, signal.SIGKILL)
    processes.until(lambda: not processes.is_alive(launcher), "the launcher is gone")
    assert not gone(pids), "nobody is left to kill them"
    here.worker(slots=1)
    assert gone(pids), "the next worker takes no work before it has killed them"
    assert here.wait(job) == 0
    shown = here.show(job)
    assert (shown["attempt"], shown["losses"]) == (2, 1)


def test_a_killed_launchers_attempts_are_lost_and_run_again_here(here: Town) -> None:
    worker = here.worker(slots=1)
    job, pids = begin(here, worker)
    launcher = worker.launcher
    os.kill(launcher, signal.SIGKILL)
    processes.until(lambda: gone(pids), "the worker kills what it inherits")
    assert here.wait(job) == 0
    shown = here.show(job)
    assert (shown["attempt"], shown["losses"], shown["worker"]) == (2, 1, worker.id)
    assert worker.launcher != launcher


def test_a_task_that_kills_its_launcher_each_time_ends_in_the_dead_letters_with_its_cause(here: Town) -> None:
    worker = here.worker(slots=2)
    runs = here.place / "runs"
    job = here.submit("sh", "-c", f"echo $TQ_ATTEMPT >>{runs}; kill -9 $PPID; sleep 600")
    assert here.wait(job) == 125
    shown = here.show(job)
    assert (shown["state"], shown["cause"], shown["losses"], shown["attempt"]) == ("dead", "lost", 3, 3)
    assert runs.read_text().split() == ["1", "2", "3"]
    assert here.running(job) == []
    after = here.submit("true")
    assert here.wait(after) == 0
    assert here.show(after)["worker"] == worker.id


def test_a_killed_task_is_137_and_the_rest_of_it_is_gone(here: Town) -> None:
    worker = here.worker(slots=1)
    job, pids = begin(here, worker)
    os.kill(int((here.place / "task.pid").read_text()), signal.SIGKILL)
    assert here.wait(job) == 137
    shown = here.show(job)
    assert (shown["state"], shown["cause"], shown["signal"], shown["attempt"]) == ("dead", "signal", 9, 1)
    assert gone(pids), "an ended attempt has no living process"


def test_a_worker_that_is_killed_after_its_task_ended_unheard_leaves_the_result_to_its_successor(
    tmp_path: Path,
) -> None:
    with town(tmp_path, "--heartbeat", "1s") as here:
        worker = here.worker(slots=1)
        flag, ran = tmp_path / "flag", tmp_path / "ran"
        job = here.submit("sh", "-c", f"echo $TQ_ATTEMPT >>{ran}; while ! test -e {flag}; do sleep 0.05; done; exit 3",
                          options=ONCE)  # fmt: skip
        here.until_started(job)
        here.server.kill()
        flag.touch()
        spool = tmp_path / "worker/tq/worker/spool"
        processes.until(lambda: [path for path in spool.iterdir() if path.name.isdecimal()], "the result is kept")
        worker.kill()
        here.server.start()
        here.worker(slots=1)
        assert here.wait(job) == 3
        shown = here.show(job)
        assert (shown["attempt"], shown["losses"], ran.read_text().split()) == (1, 0, ["1"])


@pytest.mark.timeout(180)
def test_a_client_that_is_killed_while_submitting_makes_one_job_by_its_key(here: Town) -> None:
    dice = random.Random(SEED)
    before = 0
    for number in range(6):
        key = f"killed-{number}"
        words = ("submit", "--key", key, "--name", key, "--", "true")
        client = here.popen(*words)
        time.sleep(dice.uniform(0.05, 0.3))  # before its start, its handshake, its answer, or after
        client.kill()
        out, _ = client.communicate()
        again = here.tq(*words)
        assert again.status == 0, again.err
        if out.strip():
            assert out.decode() == again.out, "the key gives the job that was acknowledged"
            before += 1
        assert here.tq("ls", "--name", key, "-q").out == again.out, "one key, one job"
    assert here.status()["jobs"] == 6
    print(f"{before} of 6 had been acknowledged when they were killed")


@pytest.mark.timeout(120 + 10 * KILLS)
def test_kills_at_random_leave_every_task_with_one_end_and_no_process(here: Town) -> None:
    """Many short tasks under kills of workers, launchers and tasks: each member ends once, with what befell it."""
    dice, ran = random.Random(SEED), here.place / "ran"
    names = ["first", "second"]
    workers = {name: here.worker(name) for name in names}
    done, jobs = Counter[str](), list[str]()
    with here.client() as client:
        for _ in range(KILLS):
            for number in range(20):  # so that there is always something to hit
                answer: Any = client.ask(command("sh", "-c", f"sleep 0.{number % 7}; echo $TQ_JOB >>{ran}"))
                jobs.append(answer.id)
            time.sleep(dice.uniform(0.1, 0.8))
            name, what = dice.choice(names), dice.choice(["worker", "launcher", "both", "task", "task", "server"])
            worker = workers[name]
            launcher = processes.launcher_of(worker.pid)
            if what == "server":
                here.server.kill()
                here.server.start()
            if what == "task" and (running := processes.children(launcher) if launcher else []):
                kill_quietly(dice.choice(running))
            if what in ("worker", "both"):
                worker.kill()
            if what in ("launcher", "both") and launcher:
                kill_quietly(launcher)
            if what in ("worker", "both"):
                workers[name] = here.worker(name)
            done[what] += 1
        ends = Counter[tuple[str, str]]()
        losses = 0
        for job in jobs:
            task = processes.until(lambda job=job: is_ended(here.task(client, job)), f"{job} ends")
            ends[task["state"], task["cause"]] += 1
            losses += task["losses"]
            assert_told(task)
        assert set(ends) <= {("succeeded", "exit"), ("dead", "signal"), ("dead", "lost")}, ends
        succeeded = {job for job in jobs if here.task(client, job)["state"] == "succeeded"}
    print(f"seed {SEED}: kills {dict(done)}, ends {dict(ends)}, losses {losses}")
    assert succeeded <= set(ran.read_text().split())
    assert ends["dead", "signal"] <= done["task"]
    assert losses
    assert here.running() == []
    here.check_store()


def assert_told(task: dict[str, Any]) -> None:
    """Assert that a task's losses and attempts are those that its history tells."""
    lost = [entry for entry in task["history"] if entry["cause"] == "lost"]
    charged = sum(entry["charged"] for entry in lost) + (task["cause"] == "lost")
    assert task["losses"] == charged <= task["attempt"], task
    assert task["losses"] <= 3, task
    assert (task["state"] == "dead" and task["cause"] == "lost") == (task["losses"] == 3), task


def is_ended(task: dict[str, Any]) -> dict[str, Any]:
    return task if task.get("phase") == "ended" else {}
