"""A task that kills its worker and its launcher each time: it ends in the dead letters, and nobody beside it does."""

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest

from tests.server.process import command
from tests.support import processes
from tests.support.town import Town, WorkerProcess, town

BYSTANDERS: Final = 200
WORKERS: Final = 3
SLOTS: Final = 4
LINE: Final = 'echo "$TQ_TASK $TQ_ATTEMPT $TQ_WORKER'
# KILL its parents, up to the worker, but nobody who is not ours: without a worker they are the children of others.
POISON: Final = """\
{line} begin" >>{ran}
sleep 0.3
parent() {{ while read -r key value; do test "$key" = PPid: && echo "$value"; done </proc/$1/status; }}
sentry=$(parent $PPID); worker=$(parent $sentry)
tr '\\0' ' ' </proc/$worker/cmdline | grep -q 'tq worker' || exit 9
kill -9 $worker $PPID
sleep 600
"""
BYSTANDER: Final = """\
{line} begin" >>{ran}
sleep $1
{line} end" >>{ran}
"""


def written(place: Path, name: str, text: str) -> str:
    path = place / name
    path.write_text(text.format(line=LINE, ran=place / "ran"))
    return str(path)


def lines(place: Path) -> list[tuple[str, int, str, str]]:
    """Return what ran, in order: task, attempt, worker, `begin` or `end`."""
    words = (line.split() for line in (place / "ran").read_text().splitlines())
    return [(task, int(attempt), worker, word) for task, attempt, worker, word in words]


def keep_alive(here: Town, workers: dict[str, WorkerProcess]) -> int:
    """Start who has died anew, as a service manager would; return how many that were."""
    dead = [name for name, worker in workers.items() if worker.process.poll() is not None]
    workers.update({name: here.launch_worker(name, slots=SLOTS) for name in dead})
    return len(dead)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_task_that_kills_its_workers_dies_alone_and_takes_no_bystander_along(tmp_path: Path) -> None:
    poison, bystander = written(tmp_path, "poison.sh", POISON), written(tmp_path, "bystander.sh", BYSTANDER)
    with town(tmp_path, "--heartbeat", "300ms") as here, here.client() as client:
        workers = {f"worker{number}": here.launch_worker(f"worker{number}", slots=SLOTS) for number in range(WORKERS)}
        sleeps = [f"0.{2 + number % 8}" for number in range(BYSTANDERS)]
        beside = [submit(client, "sh", bystander, sleep) for sleep in sleeps[: BYSTANDERS // 4]]
        processes.until(lambda: (tmp_path / "ran").exists() and len(lines(tmp_path)) > SLOTS, "bystanders run")
        killer = submit(client, "sh", poison, priority=1)
        beside += [submit(client, "sh", bystander, sleep) for sleep in sleeps[BYSTANDERS // 4 :]]
        deaths, deadline_s = 0, time.monotonic() + 120
        while not all(here.task(client, task).get("phase") == "ended" for task in [killer, *beside]):
            deaths += keep_alive(here, workers)
            assert time.monotonic() < deadline_s, [here.task(client, task) for task in [killer, *beside[:3]]]
            time.sleep(0.1)

        shown = here.task(client, killer)
        assert (shown["state"], shown["cause"], shown["losses"], shown["attempt"]) == ("dead", "lost", 3, 3)
        assert [(entry["cause"], entry["charged"]) for entry in shown["history"]] == [("lost", True)] * 2
        ran = lines(tmp_path)
        assert [attempt for task, attempt, _, _ in ran if task == killer] == [1, 2, 3]
        assert beside_the_last(ran, killer) == []
        told = {task: here.task(client, task) for task in beside}
        assert {task: one for task, one in told.items() if one["state"] != "succeeded"} == {}
        executions = Counter(task for task, _, _, word in ran if word == "begin")
        too_often = {task: executions[task] for task in beside if executions[task] > told[task]["losses"] + 1}
        assert too_often == {}, [told[task] for task in too_often]
        losses = Counter(one["losses"] for one in told.values())
        print(f"{deaths} workers died, {BYSTANDERS} bystanders lost so often: {dict(losses)}")
        assert sum(losses.elements()) > 0, "somebody ran beside it"
        assert deaths == 3
        letters = json.loads(here.tq("dlq", "ls", "-o", "json").out)
        assert [(letter["id"], letter["cause"]) for letter in letters["items"]] == [(killer, "lost")]
        processes.until(lambda: not here.running(), "nothing of it lives")
        here.check_store()


def submit(client: Any, *argv: str, **fields: Any) -> str:
    return str(client.ask(command(*argv, **fields)).id)


def beside_the_last(ran: list[tuple[str, int, str, str]], killer: str) -> list[str]:
    """Return what ran on the worker of the killer's last attempt while that ran."""
    place = max(index for index, (task, *_) in enumerate(ran) if task == killer)
    worker = ran[place][2]
    ended = {(task, attempt) for task, attempt, _, word in ran[:place] if word == "end"}
    before = {(task, attempt) for task, attempt, at, word in ran[:place] if at == worker and word == "begin"}
    after = {(task, attempt) for task, attempt, at, word in ran[place + 1 :] if at == worker and word == "begin"}
    return sorted(f"{task} attempt {attempt}" for task, attempt in (before - ended) | after)
