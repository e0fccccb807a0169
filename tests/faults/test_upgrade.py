"""Another version of tq is installed while a worker of the old one runs: two versions never talk to each other."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

import tq
from tests.support import processes
from tests.support.town import Town, WorkerProcess, kill_quietly, town


class Installed(NamedTuple):
    """A worker of a tq that is installed in a place of its own."""

    worker: WorkerProcess
    init: Path

    def upgrade(self) -> None:
        """Install another version under it."""
        self.init.write_text(self.init.read_text().replace(tq.__version__, "99.0"))


def install(here: Town, *options: str) -> Installed:
    site = here.place / "site"
    shutil.copytree(Path(tq.__file__).parent, site / "tq", ignore=shutil.ignore_patterns("__pycache__"))
    worker = here.worker("old", *options, environ={"PYTHONPATH": str(site)})
    return Installed(worker, site / "tq" / "__init__.py")


@pytest.mark.slow
def test_a_worker_whose_launcher_would_be_of_another_version_ends_and_its_successor_goes_on(tmp_path: Path) -> None:
    with town(tmp_path, "--heartbeat", "200ms") as here:
        old = install(here)
        job = here.submit("sh", "-c", "[ $TQ_ATTEMPT -gt 1 ] || sleep 60")
        here.until_started(job)
        old.upgrade()
        processes.until(lambda: here.show(job)["state"] == "running", "what runs goes on")
        kill_quietly(old.worker.launcher)

        assert old.worker.process.wait(processes.PATIENCE_S) == 75
        assert f"tq 99.0 has been installed under this worker, which is {tq.__version__}" in old.worker.text()
        assert "hint: start the worker again" in old.worker.text()
        here.worker("old")
        assert here.wait(job) == 0
        assert {entry["cause"] for entry in here.show(job)["history"]} == {"lost"}


@pytest.mark.slow
def test_processes_that_call_functions_are_not_mixed_and_whatever_else_runs_on_the_worker_goes_on(
    tmp_path: Path,
) -> None:
    with town(tmp_path, "--heartbeat", "200ms") as here:
        old = install(here, "--allow", "math")
        old.upgrade()
        call = here.tq("submit", "--function", "math:sqrt", "--args", "[9]").out.strip()
        old.worker.says("cannot start what calls functions: tq 99.0 has been installed")

        assert here.wait(here.submit("true")) == 0
        assert here.show(call)["state"] == "queued"
        assert here.show(call)["reason"]
        here.worker("new", "--allow", "math")
        assert here.wait(call) == 0
        assert json.loads(here.tq("result", call).out)["value"] == 3
        assert all(entry["cause"] == "worker_trouble" for entry in here.show(call).get("history", ()))
