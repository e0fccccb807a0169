"""Two faults at once, of those that are there for one another: a task with `--if-cut stop` still has one copy.

Two workers, each with a state directory of its own: no successor finds what the other one has left. A copy holds a lock
for as long as a process of it lives, also one that has left its session, its environment and its parent.
TQ_DOUBLE_FAULTS sets how often each pair is played.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.support import processes
from tests.support.town import Town, WorkerProcess, kill_quietly, town

COUNT: Final = int(os.environ.get("TQ_DOUBLE_FAULTS", "2"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(120 + 20 * COUNT)]
BEAT: Final = "500ms"
NAMES: Final = ("one", "other")
TASK: Final = """\
exec 9>>"$1.lock"
flock -n 9 && word=alone || word=beside
echo "$TQ_ATTEMPT $word" >>"$1.copies"
[ "$TQ_ATTEMPT" = 1 ] || exit 0
(env -i setsid sleep 600 &)
touch "$1.begun"
sleep 600
"""


def both_killed(worker: int, launcher: int, sentry: int) -> None:
    kill_quietly(worker)
    kill_quietly(launcher)


def stopped_and_killed(worker: int, launcher: int, sentry: int) -> None:
    os.kill(worker, signal.SIGSTOP)
    kill_quietly(launcher)


def killed_and_stopped(worker: int, launcher: int, sentry: int) -> None:
    os.kill(launcher, signal.SIGSTOP)
    kill_quietly(worker)


def without_a_worker_and_a_sentry(worker: int, launcher: int, sentry: int) -> None:
    kill_quietly(worker)
    kill_quietly(sentry)


def stopped_without_a_sentry(worker: int, launcher: int, sentry: int) -> None:
    os.kill(worker, signal.SIGSTOP)
    kill_quietly(sentry)


@pytest.mark.parametrize(
    "fault",
    [both_killed, stopped_and_killed, killed_and_stopped, without_a_worker_and_a_sentry, stopped_without_a_sentry],
)
def test_if_cut_stop_leaves_one_copy_whichever_two_fail_at_once(
    tmp_path: Path, fault: Callable[[int, int, int], None]
) -> None:
    script = tmp_path / "task.sh"
    script.write_text(TASK)
    alone = 0
    with town(tmp_path, "--heartbeat", BEAT) as here:
        workers = {name: here.worker(name, slots=1) for name in NAMES}
        for number in range(COUNT):
            copies = play(here, workers, fault, tmp_path / f"round-{number}")
            alone += copies == ["1 alone", "2 alone"]
            print(f"{fault.__name__} {number + 1}: {copies}")
        print(f"{fault.__name__}: one copy in {alone} of {COUNT}")
        assert alone == COUNT


def play(
    here: Town, workers: dict[str, WorkerProcess], fault: Callable[[int, int, int], None], place: Path
) -> list[str]:
    """Begin a task, harm its worker, wait for the task's end on the other; return what its copies have noted."""
    job = here.submit("sh", str(here.place / "task.sh"), str(place), options=["--if-cut", "stop"])
    processes.until(lambda: place.with_suffix(".begun").exists(), "the first copy has begun")
    here.until_started(job)
    mine = here.show(job)["worker"]
    name = next(name for name in NAMES if workers[name].id == mine)
    hit = workers[name]
    launcher = hit.launcher
    fault(hit.pid, launcher, processes.parent(launcher))
    assert here.wait(job) == 0
    shown = here.show(job)
    assert (shown["attempt"], shown["worker"] == mine) == (2, False)
    hit.kill()
    processes.until(lambda: not processes.is_alive(launcher), "its launcher is gone")
    workers[name] = here.worker(name, slots=1)
    return place.with_suffix(".copies").read_text().splitlines()
