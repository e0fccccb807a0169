"""Disks of real servers that fail once, or are full: nothing is acknowledged that is not there, and all goes on after.

The library of tests/support/power.py makes one sync or one write to the log fail, from the moment when a file appears.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.server.process import command
from tests.support import processes
from tests.support.power import cut_power, environment
from tests.support.town import Town, town
from tq import limits
from tq.errors import NotDone, TqError, Unknown, Unreachable

pytestmark = pytest.mark.slow
CLIENTS: Final = 4
MIB: Final = limits.MIB
FAULTS: Final = {
    "the next fsync": {"fail_sync": 1}, "a later fsync": {"fail_sync": 9}, "the next write": {"fail_write": 1},
    "a later write": {"fail_write": 40},
}  # fmt: skip


class Submitter(threading.Thread):
    """Submits over one connection until that breaks; knows what was acknowledged, and how it ended."""

    def __init__(self, here: Town, name: str, script: str = "true") -> None:
        super().__init__(name=name)
        self.acknowledged: dict[str, str] = {}
        self.pending = ""
        self.failure: TqError | None = None
        self._here = here
        self._script = script
        self.start()

    def run(self) -> None:
        number = 0
        try:
            with self._here.client(patience_s=0) as client:
                while True:
                    number += 1
                    self.pending = f"{self.name}-{number}"
                    request = command("sh", "-c", self._script, key=self.pending, name=self.pending)
                    answer: Any = client.ask(request)
                    self.acknowledged[self.pending] = answer.id
        except TqError as error:
            self.failure = error


@pytest.mark.parametrize("fault", FAULTS)
def test_after_one_failure_nothing_is_acknowledged_and_everything_acknowledged_is_there(
    tmp_path: Path, library: Path, fault: str
) -> None:
    arm, script = tmp_path / "arm", f"echo $TQ_JOB >>{tmp_path}/ran"
    with town(tmp_path, environ=environment(library, arm=arm, **FAULTS[fault])) as here:
        worker = here.worker(slots=2)
        held = here.submit("sh", "-c", "while ! test -e flag; do sleep 0.05; done; exit 7", options=["--retries", "0"])
        here.until_started(held)
        submitters = [Submitter(here, f"c{number}", script) for number in range(CLIENTS)]
        processes.until(lambda: all(len(one.acknowledged) > 5 for one in submitters), "clients submit")
        arm.touch()
        assert here.server.process.wait(processes.PATIENCE_S) == 74
        for one in submitters:
            one.join(processes.PATIENCE_S)
            assert isinstance(one.failure, Unknown | Unreachable | NotDone), one.failure
        # Who was waiting for the turn that failed is told so; who asked later may find nobody.
        assert any(isinstance(one.failure, Unknown) and one.failure.exit_status == 74 for one in submitters)
        assert "store_failed" in here.server.log()

        cut_power(here.server.data)  # what a failed sync left in memory does not count
        for variable in ("TQ_SHIM_FAIL_SYNC", "TQ_SHIM_FAIL_WRITE"):
            here.server.environ.pop(variable, None)
        here.server.start()
        with here.client() as client:
            for one in submitters:
                for key, job in one.acknowledged.items():
                    assert here.task(client, job)["name"] == key
                again: Any = client.ask(command("sh", "-c", script, key=one.pending, name=one.pending))
                assert again.id not in one.acknowledged.values()
                one.acknowledged[one.pending] = again.id
        (tmp_path / "flag").touch()
        assert here.wait(held) == 7
        known = [job for one in submitters for job in one.acknowledged.values()]
        assert len(known) == len(set(known))
        assert here.wait(*known) == 0
        assert sorted((tmp_path / "ran").read_text().split(), key=int) == sorted(known, key=int)
        assert (here.show(held)["attempt"], here.show(held)["losses"]) == (1, 0)
        assert worker.process.poll() is None
        here.check_store()


@pytest.mark.parametrize("fault", ["the next fsync", "the next write"])
def test_a_submit_that_meets_the_failure_ends_with_74_and_is_safe_to_repeat(
    tmp_path: Path, library: Path, fault: str
) -> None:
    arm = tmp_path / "arm"
    with town(tmp_path, environ=environment(library, arm=arm, **FAULTS[fault])) as here:
        before = here.submit("true")
        arm.touch()
        words = ("submit", "--connect-timeout", "0", "--key", "mine", "--", "true")
        done = here.tq(*words)
        assert (done.status, done.out) == (74, ""), done
        assert "key" in done.err
        assert here.server.process.wait(processes.PATIENCE_S) == 74
        for variable in ("TQ_SHIM_FAIL_SYNC", "TQ_SHIM_FAIL_WRITE"):
            here.server.environ.pop(variable, None)
        here.server.start()
        first, second = here.tq(*words), here.tq(*words)
        assert (first.status, first.out) == (0, second.out)
        assert here.show(before)["id"] == before
        assert here.status()["jobs"] == 2
        here.check_store()


# ---------------------------------------------------------------- no room


def used_mib(place: Path) -> int:
    found = os.statvfs(place)
    return (found.f_blocks - found.f_bfree) * found.f_frsize // MIB


def test_a_server_without_any_room_exits_74_and_comes_back_when_there_is_some(
    tmp_path: Path, small_disk: tuple[Path, Callable[[int], None]]
) -> None:
    place, resize = small_disk
    here = Town(tmp_path)
    here.server.data = place / "data"
    for environ in (here.server.environ, here.environ):
        environ["TQ_DATA"] = str(here.server.data)
    try:
        here.server.start()
        worker = here.worker(slots=2)  # its own directory is on another disk
        script = "while ! test -e flag.$TQ_JOB; do sleep 0.05; done; head -c 200000 /dev/urandom | base64; exit 3"
        running = [here.submit("sh", "-c", script, options=["--retries", "0"]) for _ in range(2)]
        for job in running:
            here.until_started(job)
        jobs = [here.submit("true") for _ in range(20)]
        resize(used_mib(place) + 1)
        processes.until(lambda: here.status()["server"]["room"] == "critical", "it notices")
        done = here.tq("submit", "--", "true")
        assert done.status == 75, done
        # Reports go on until not one byte fits any more: the output of these does not.
        for job in running:
            (tmp_path / f"flag.{job}").touch()
        fill(place / "filler")
        assert here.server.process.wait(processes.PATIENCE_S) == 74
        assert worker.process.poll() is None

        started = here.server.run()  # there is still no room
        assert started.returncode in (74, 78), started
        assert "Traceback" not in started.stderr
        (place / "filler").unlink()
        resize(2_048)
        here.server.start()
        assert here.wait(*running) == 1
        for job in running:
            shown = here.show(job)
            assert (shown["exit_code"], shown["attempt"], shown["losses"]) == (3, 1, 0)
        assert here.wait(*jobs) == 0
        assert here.wait(here.submit("true")) == 0
        here.check_store()
    finally:
        here.close()


def fill(path: Path) -> None:
    """Write until the disk has no room at all."""
    with path.open("wb", buffering=0) as file:
        for size in (65_536, 4_096):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def test_a_worker_without_room_goes_on_and_keeps_results_in_memory(
    tmp_path: Path, small_disk: tuple[Path, Callable[[int], None]]
) -> None:
    place, resize = small_disk
    with town(tmp_path) as here:
        worker = here.worker("disk/worker", slots=1)
        flag = "while ! test -e flag; do sleep 0.05; done; echo printed; exit 3"
        job = here.submit("sh", "-c", flag, options=["--retries", "0"])
        here.until_started(job)
        resize(used_mib(place) + 1)
        fill(place / "filler")
        here.server.kill()
        (tmp_path / "flag").touch()
        worker.says("spool_failed")
        here.server.start()
        assert here.wait(job) == 3
        assert here.tq("logs", job).out == "printed\n"
        assert (here.show(job)["attempt"], here.show(job)["losses"]) == (1, 0)
        (place / "filler").unlink()
        resize(2_048)
        assert here.wait(here.submit("true")) == 0
