"""Chaos on real processes: anything is killed or frozen at any moment, the server's disk fails, machines lose their
power, and one of three workers has a hostile network.

Each task that was acknowledged succeeds, once; each execution beyond one belongs to an attempt that was lost, or to one
that was killed itself; of a task with `--if-cut stop` no two copies run at once. The record of what was acknowledged is
that of the clients, the record of what ran is a file to which each task adds its lines; tq keeps neither.

TQ_CHAOS_SECONDS sets how long that goes on (default 30), TQ_CHAOS_SEED the dice, TQ_CHAOS_PAUSE_S the pace of the
clients, TQ_CHAOS_SIZE how many tasks a job has at most. `make chaos` is ten minutes of it.
"""

import os
import random
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support import processes
from tests.support.chaos import Chaos
from tests.support.chaos_clients import Acknowledged, Clients
from tests.support.chaos_verdict import executions, judge
from tests.support.power import NoShim, build_shim, environment
from tests.support.proxy import proxied
from tests.support.town import Town, town
from tq.core.vocabulary import Status

SECONDS: Final = float(os.environ.get("TQ_CHAOS_SECONDS", "30"))
SEED: Final = int(os.environ.get("TQ_CHAOS_SEED", "1"))
PAUSE_S: Final = float(os.environ.get("TQ_CHAOS_PAUSE_S", "0.1"))
SIZE_MAX: Final = int(os.environ.get("TQ_CHAOS_SIZE", "100"))
BETWEEN_S: Final = (0.3, 2.0)
BEAT: Final = "500ms"
# A copy that finds the lock held says so, unless who holds it is frozen, or the launcher of it, as the docs say.
TASK: Final = """\
is_frozen() {{ grep -qs '^State:.T' "/proc/$1/status" "/proc/$2/status"; }}
if [ -n "$ALONE" ]; then
    exec 9>>"{place}/$TQ_TASK.lock"
    if ! flock -n 9; then
        read -r main launcher <"{place}/$TQ_TASK.holder"
        if is_frozen "$main" "$launcher"; then flock 9; fi
        flock -w 0.2 9 || {{ echo "$TQ_TASK $TQ_ATTEMPT beside" >>{ran}; flock 9; }}
    fi
    echo "$$ $PPID" >"{place}/$TQ_TASK.holder"
fi
echo "$TQ_TASK $TQ_ATTEMPT begin" >>{ran}
[ -z "$FAIL_FIRST" ] || [ -e "{place}/$TQ_TASK" ] || {{ : >"{place}/$TQ_TASK"; exit 3; }}
[ "$1" = 0 ] || sleep "$1"
echo "$TQ_TASK $TQ_ATTEMPT end" >>{ran}
echo "$TQ_TASK $TQ_ATTEMPT"
"""
# A kill between connect and handshake makes CPython's ssl drop a half-made socket without closing it.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning"),
]


def shim(place: Path) -> dict[str, str]:
    """Return the variables of a server whose machine can lose its power, none where that cannot be played."""
    place.mkdir()
    try:
        return environment(build_shim(place))
    except NoShim as reason:
        print(f"no power cuts: {reason}")
        return {}


@pytest.mark.timeout(300 + 3 * SECONDS)
def test_what_was_acknowledged_succeeds_once_whatever_is_killed_frozen_or_cut_off(tmp_path: Path) -> None:
    dice, ran = random.Random(SEED), tmp_path / "ran"
    script = tmp_path / "task.sh"
    script.write_text(TASK.format(ran=ran, place=tmp_path / "failed"))
    (tmp_path / "failed").mkdir()
    power = shim(tmp_path / "shim")
    told = Acknowledged(tmp_path / "acknowledged")
    with town(tmp_path, "--heartbeat", BEAT, environ=power) as here, proxied(here.server.port) as line:
        clients = Clients(here, told, ["sh", str(script)], dice, PAUSE_S, SIZE_MAX)
        afar = {"TQ_URL": line.url, "TQ_JOIN": here.tq("join").out.strip()}
        workers = {"first": power, "second": power, "afar": {**power, **afar}}
        chaos = Chaos(here, dice, workers, line, lambda: clients.pids)
        clients.start()
        try:
            end_s = time.monotonic() + SECONDS
            while time.monotonic() < end_s and not (told.wrong or chaos.wrong):
                chaos.tend_for(dice.uniform(*BETWEEN_S))
                chaos.harm()
        finally:
            chaos.heal()
            clients.stop()
        seed = f"TQ_CHAOS_SEED={SEED} TQ_CHAOS_SECONDS={SECONDS:g}, logs and records in {tmp_path}"
        assert told.wrong + chaos.wrong == [], seed
        until_all_ended(here, chaos)
        assert here.status()["jobs"] == len(told.jobs), f"I2: one key, one job; {seed}"
        with here.client() as client:
            show = partial(here.task, client)
            figures, wrong = judge(told.jobs, executions(ran.read_text()), show, told.cancelled)
        print(f"{seed}\n{sum(chaos.done.values())} faults {dict(chaos.done)}\n{len(told.jobs)} jobs, {figures}\n"
              f"repeats {dict(told.repeats)}")  # fmt: skip
        assert wrong == [], f"{len(wrong)} broken; {seed}"
        assert here.running() == [], "nothing of what has ended lives"
        assert chaos.wrong == [], seed
        assert complaints(here) == [], seed
        assert figures.tasks > SECONDS / 3
        here.check_store()


def complaints(here: Town) -> list[str]:
    """Return what server and workers log as errors, but that a launcher was killed or the disk failed."""
    texts = [here.server.log(), *(log.read_text() for log in {worker.log for worker in here.workers})]
    lines = [line for text in texts for line in text.splitlines() if " error " in line or "Traceback" in line]
    return [line for line in lines if "launcher_died" not in line and "store_failed" not in line]


def until_all_ended(here: Town, chaos: Chaos) -> None:
    """Wait until nothing is left to run; whoever ends by itself meanwhile is a finding."""

    def alive(client: Any) -> bool:
        chaos.tend()
        counts: dict[str, int] = client.ask(Status()).value["tasks"]
        return not sum(count for state, count in counts.items() if state in ("queued", "running", "retrying"))

    with here.client() as client:
        try:
            processes.until(lambda: alive(client), "everything ends", patience_s=120 + SECONDS / 2)
        except AssertionError:
            tell_what_is_left(here)
            raise


def tell_what_is_left(here: Town) -> None:
    """Print what has not ended and why: whether it is overload or a task that hangs is the first question."""
    unended = ("--state", "queued,running,retrying", "-n", "20")
    jobs = here.tq("ls", *unended, "-o", "id").out.split()
    for words in [(), ("workers",), ("doctor",), ("ls", *unended), *(("ls", job, *unended) for job in jobs[:5])]:
        done = here.tq(*words)
        print(f"$ tq {' '.join(words)}\n{done.out}{done.err}")
    for job in jobs[:5]:
        tasks = here.tq("ls", job, *unended, "-o", "id").out.split()
        print(here.tq("show", tasks[0] if tasks else job).out)
