"""Rows of docs/reliability.md that no other test walks: a task that stops itself, zombies, a storm of reconnections."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support import processes
from tests.support.town import Town, town
from tq.core.vocabulary import Status

PEERS: Final = 60
pytestmark = pytest.mark.slow


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Town]:
    with town(tmp_path, "--heartbeat", "1s") as made:
        yield made


def test_a_task_that_stops_itself_meets_its_time_limit_all_the_same(here: Town) -> None:
    here.worker(slots=1)
    job = here.submit("sh", "-c", "kill -STOP $$; echo woken", options=["--time-limit", "300ms", "--retries", "0"])

    assert here.wait(job) == 124
    shown = here.show(job)
    assert (shown["cause"], shown["attempt"], here.tq("logs", job).out) == ("time_limit", 1, "")
    assert here.running(job) == []


def test_orphans_that_end_leave_no_zombie_behind(here: Town) -> None:
    worker = here.worker(slots=2)
    orphans = "for number in 1 2 3 4 5; do (setsid sh -c 'sleep 0.0$1' sh $number &); done; sleep 0.2"
    jobs = [here.submit("sh", "-c", orphans, options=["--array", "1-4"]), here.submit("sh", "-c", orphans)]

    assert here.wait(*jobs) == 0
    parents = [worker.pid, worker.launcher]
    processes.until(lambda: not [child for pid in parents for child in zombies(pid)], "all are reaped")
    assert processes.children(worker.launcher) == [], "and nothing of them lives"


def zombies(parent: int) -> list[int]:
    return [child for child in processes.children(parent) if not processes.is_alive(child)]


def test_everybody_who_comes_back_at_once_after_a_restart_is_served(here: Town) -> None:
    answers: dict[int, Any] = {}
    gate = threading.Barrier(PEERS + 1)

    def peer(number: int) -> None:
        with here.client() as client:
            client.ask(Status())
            gate.wait()  # all are connected
            gate.wait()  # the server is gone
            answers[number] = client.ask(Status())

    threads = [threading.Thread(target=peer, args=(number,)) for number in range(PEERS)]
    for thread in threads:
        thread.start()
    gate.wait(processes.PATIENCE_S)
    here.server.kill()
    gate.wait(processes.PATIENCE_S)
    here.server.start()
    for thread in threads:
        thread.join(processes.PATIENCE_S)

    assert sorted(answers) == list(range(PEERS))
    assert {answer.value["epoch"] for answer in answers.values()} == {2}
