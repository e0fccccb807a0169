"""Cut after cut of every kind, at any moment: a live worker is fed again each time, and nothing is lost or ends twice.

TQ_CUTS sets how many (default 8), TQ_CUT_SEED the dice; `TQ_CUTS=1000` is an evening.
"""

import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest

from tests.server.process import command
from tests.support import processes
from tests.support.proxy import Proxy, Way, proxied
from tests.support.town import town

CUTS: Final = int(os.environ.get("TQ_CUTS", "8"))
SEED: Final = int(os.environ.get("TQ_CUT_SEED", "1"))
BEAT_S: Final = 0.3
TASKS: Final = 4  # before each cut


def cut(line: Proxy, dice: random.Random) -> str:
    """Let the network be bad in some way for some time: shorter or longer than what makes a worker lost."""
    kind = dice.choice(["reset", "refuse", "black hole", "nothing up", "nothing down", "slow"])
    match kind:
        case "reset":
            line.reset()
        case "refuse":
            line.refuse()
        case "slow":
            line.delay(dice.uniform(0.01, 0.2))
        case _:
            line.black_hole({"black hole": Way.BOTH, "nothing up": Way.UP, "nothing down": Way.DOWN}[kind])
    time.sleep(dice.choice([0.0, 0.5, 1.0, 2.0, 5.0]) * BEAT_S)  # the length of the cut is what is tried out
    line.heal()
    return kind


@pytest.mark.slow
@pytest.mark.timeout(180 + 10 * CUTS)
@pytest.mark.parametrize("is_alone", [True, False], ids=["alone", "beside another one"])
def test_after_any_cut_a_live_worker_is_fed_again(tmp_path: Path, is_alone: bool) -> None:
    dice, ran, kinds, jobs = random.Random(SEED + is_alone), tmp_path / "ran", Counter[str](), list[str]()
    with town(tmp_path, "--heartbeat", f"{round(BEAT_S * 1_000)}ms") as here, proxied(here.server.port) as line:
        worker = here.worker("far", slots=2, environ=here.elsewhere(line.url))
        if not is_alone:
            here.worker("near", slots=1)
        with here.client() as client:

            def submit(seconds: float) -> str:
                answer: Any = client.ask(
                    command("sh", "-c", f"sleep {seconds}; echo $TQ_JOB.$TQ_ATTEMPT >>{ran}", crash_limit=0)
                )
                return str(answer.id)

            for _ in range(CUTS):
                jobs += [submit(dice.choice([0, 0.05, 0.5])) for _ in range(TASKS)]
                time.sleep(dice.uniform(0, 0.3))  # at any moment of assigning, starting, running, reporting
                kinds[cut(line, dice)] += 1
                probe = submit(0)
                jobs.append(probe)
                processes.until(lambda probe=probe: is_ended(here.task(client, probe)), "it is fed again")
            ends = {
                job: processes.until(lambda job=job: is_ended(here.task(client, job)), f"{job} ends") for job in jobs
            }
        assert worker.process.poll() is None
        runs = Counter(ran.read_text().split())
        for job, task in ends.items():
            assert task["state"] == "succeeded", task
            assert runs[f"{job}.{task['attempt']}"] == 1, "the attempt that counts has run, once"
        assert set(runs.values()) == {1}, "no attempt has run twice"
        print(f"{CUTS} cuts, seed {SEED}: {dict(kinds)}, {len(jobs)} tasks, {sum(runs.values())} runs")
        here.check_store()


def is_ended(task: dict[str, Any]) -> dict[str, Any]:
    return task if task.get("phase") == "ended" else {}
