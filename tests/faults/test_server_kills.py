"""The server is killed again and again while clients submit and a long task runs: nothing is lost, nothing runs twice.

TQ_CHAOS_SECONDS sets how long that goes on (default 10), TQ_CHAOS_SEED the dice. The record of what was acknowledged is
the clients' own; that of what ran is a file to which each task adds its line.
"""

import contextlib
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.server.process import command
from tests.support import processes
from tests.support.town import Town, town
from tq.errors import TqError

SECONDS: Final = float(os.environ.get("TQ_CHAOS_SECONDS", "10"))
SEED: Final = int(os.environ.get("TQ_CHAOS_SEED", "1"))
AGAIN: Final = (69, 74, 75)
PAUSE_S: Final = 0.02  # of the quick client, so that the workers keep up


class Ledger:
    """What clients know: the job that each key was acknowledged with. Shared by threads."""

    def __init__(self) -> None:
        self.is_over = threading.Event()
        self.jobs: dict[str, str] = {}
        self.repeats: Counter[str] = Counter()
        self.wrong: list[str] = []

    def acknowledge(self, key: str, job: str) -> None:
        self.jobs[key] = job


def submit_by_program(here: Town, ledger: Ledger, script: str) -> None:
    """Submit with `tq submit`, one after the other; repeat with the same key what may have failed."""
    number = 0
    while not ledger.is_over.is_set():
        number += 1
        while True:
            done = here.tq(
                "submit", "--connect-timeout", "0", "--key", f"cli-{number}", "--name", f"cli-{number}", "--",
                "sh", "-c", script,
            )  # fmt: skip
            if done.status == 0:
                ledger.acknowledge(f"cli-{number}", done.out.strip())
                break
            if done.status not in AGAIN:
                ledger.wrong.append(f"cli-{number}: {done}")
                return
            ledger.repeats[f"program: {done.status}"] += 1


def submit_by_client(here: Town, ledger: Ledger, script: str) -> None:
    """Submit over a connection that stays, without patience: each failure is seen here, and repeated here."""
    number = 0
    with here.client(patience_s=0) as client:
        while not ledger.is_over.wait(PAUSE_S):
            number += 1
            key = f"client-{number}"
            while True:
                try:
                    answer: Any = client.ask(command("sh", "-c", script, key=key, name=key))
                except TqError as error:
                    if error.exit_status not in AGAIN:
                        ledger.wrong.append(f"{key}: {error!r}")
                        return
                    ledger.repeats[f"client: {error.exit_status}"] += 1
                    time.sleep(PAUSE_S)
                else:
                    ledger.acknowledge(key, answer.id)
                    break


@contextlib.contextmanager
def submitting(here: Town, script: str) -> Iterator[Ledger]:
    ledger = Ledger()
    threads = [
        threading.Thread(target=loop, args=(here, ledger, script)) for loop in (submit_by_program, submit_by_client)
    ]
    for thread in threads:
        thread.start()
    try:
        yield ledger
    finally:
        ledger.is_over.set()
        for thread in threads:
            thread.join(processes.PATIENCE_S)
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.slow
@pytest.mark.timeout(180 + 4 * SECONDS)
def test_nothing_acknowledged_is_lost_and_nothing_runs_twice_while_the_server_is_killed(tmp_path: Path) -> None:
    ran, dice = tmp_path / "ran", random.Random(SEED)
    sleeps_s = max(SECONDS - 5, 5)
    sleeper = f"echo $$ >>{tmp_path}/sleeper; sleep {sleeps_s:g}; echo $$ >>{tmp_path}/sleeper"
    with town(tmp_path) as here:
        here.worker("first", slots=2)
        here.worker("second", slots=2)
        long = here.submit("sh", "-c", sleeper)
        here.until_started(long)
        pid = int(processes.until(lambda: read(tmp_path / "sleeper"), "the sleeper has noted its pid"))
        identity, begun_s, kills = processes.started(pid), time.monotonic(), 0
        with submitting(here, f"echo $TQ_JOB >>{ran}") as ledger:
            while time.monotonic() < begun_s + SECONDS and not ledger.wrong:
                time.sleep(dice.uniform(0.5, 2))
                here.server.kill()
                kills += 1
                if processes.is_alive(pid):
                    assert processes.started(pid) == identity
                here.server.start()
        assert ledger.wrong == []

        jobs = sorted(ledger.jobs.values(), key=int)
        assert len(jobs) == len(set(jobs)), "two keys, one job"
        assert here.status()["jobs"] == len(jobs) + 1, "one key, one job: every key was acknowledged in the end"
        figures = all_ended_once(here, ledger)
        assert here.wait(long) == 0
        assert (tmp_path / "sleeper").read_text().split() == [str(pid)] * 2
        shown = here.show(long)
        assert (shown["attempt"], shown["losses"], shown["history"]) == (1, 0, [])
        assert shown["run_s"] >= sleeps_s
        runs = Counter(ran.read_text().split())
        assert {job: count for job, count in runs.items() if count != 1} == {}
        assert set(jobs) <= set(runs)
        assert here.counter("losses") == 0
        print(f"{SECONDS:g} s, seed {SEED}: {kills} kills, {len(jobs)} acknowledged, "
              f"repeats {dict(ledger.repeats)}, attempts {figures}")  # fmt: skip
        assert kills >= SECONDS / 6
        assert len(jobs) > kills
        here.check_store()


def all_ended_once(here: Town, ledger: Ledger) -> dict[int, int]:
    """Wait until everything acknowledged has succeeded; return how many had which attempt number."""
    attempts: Counter[int] = Counter()
    with here.client() as client:
        for key, job in ledger.jobs.items():
            shown = processes.until(
                lambda job=job: is_ended(here.task(client, job)), f"{job} ends: {here.task(client, job)}"
            )
            assert (shown["name"], shown["state"], shown["code"]) == (key, "succeeded", 0)
            # An assignment that never reached its worker goes back uncharged: a number, and nothing that ran.
            assert (shown["losses"], shown["failures"], shown["history"]) == (0, 0, []), shown
            attempts[shown["attempt"]] += 1
    return dict(attempts)


def is_ended(shown: dict[str, Any]) -> dict[str, Any]:
    return shown if shown.get("phase") == "ended" else {}  # one that was never begun has none


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""
