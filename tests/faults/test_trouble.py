"""A worker whose machine is out of something cannot start what it is given: others do, and it is asked again later."""

import resource
from pathlib import Path
from typing import Any

import pytest

from tests.support import processes
from tests.support.town import Town, WorkerProcess, town
from tq.core.vocabulary import Workers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def starve(here: Town, worker: WorkerProcess) -> tuple[int, int]:
    """Leave the worker's launcher no descriptor for another process; return what it was allowed before."""
    assert here.wait(here.submit("true")) == 0  # the launcher has what it needs for itself
    _, hard = resource.prlimit(worker.launcher, resource.RLIMIT_NOFILE)
    return resource.prlimit(worker.launcher, resource.RLIMIT_NOFILE, (4, hard))


def feed(worker: WorkerProcess, before: tuple[int, int]) -> None:
    """Take that back."""
    resource.prlimit(worker.launcher, resource.RLIMIT_NOFILE, before)


def shown(here: Town, worker: WorkerProcess) -> dict[str, Any]:
    with here.client() as client:
        page: Any = client.ask(Workers())
    return next(item for item in page.items if item["id"] == worker.id)


def test_others_run_it_at_once_and_neither_a_retry_nor_a_loss_is_counted(tmp_path: Path) -> None:
    with town(tmp_path) as here:
        sick = here.worker("sick", slots=1)
        before = starve(here, sick)
        job = here.submit("true", options=("--retries", "0", "--crash-limit", "1"))
        processes.until(lambda: shown(here, sick)["troubles"] >= 1, "it cannot start it")
        assert "open files" in shown(here, sick)["trouble"]
        assert here.show(job)["state"] == "queued"
        well = here.worker("well", slots=1)
        assert here.wait(job) == 0
        done = here.show(job)
        assert (done["failures"], done["losses"], done["worker"]) == (0, 0, well.id)
        many = [here.submit("true") for _ in range(5)]
        assert here.wait(*many) == 0
        assert {here.show(one)["worker"] for one in many} == {well.id}
        feed(sick, before)


def test_where_nobody_else_is_the_task_says_why_it_waits_and_runs_once_the_trouble_is_over(tmp_path: Path) -> None:
    with town(tmp_path) as here:
        sick = here.worker("sick", slots=2)
        before = starve(here, sick)
        job = here.submit("true", options=("--retries", "0"))
        processes.until(lambda: shown(here, sick)["troubles"] >= 2, "it was tried again")
        reason = here.show(job)["reason"]
        assert reason.startswith(
            "the worker that could run it could not start its last attempts, as its log says; tried"
        )
        feed(sick, before)
        assert here.wait(job) == 0
        processes.until(lambda: shown(here, sick)["troubles"] == 0, "all is well again")
        done = here.show(job)
        assert (done["failures"], done["losses"]) == (0, 0)
        assert done["attempt"] >= 3


def test_undrain_tries_again_at_once(tmp_path: Path) -> None:
    with town(tmp_path) as here:
        sick = here.worker("sick", slots=1)
        before = starve(here, sick)
        job = here.submit("true")
        processes.until(lambda: shown(here, sick)["troubles"] >= 4, "it rests for 8 s now")
        feed(sick, before)
        assert here.tq("undrain", sick.id).status == 0
        assert here.wait(job, timeout="7") == 0
