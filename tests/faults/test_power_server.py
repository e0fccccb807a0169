"""A whole server whose machine loses power, round after round: what it acknowledged is there, and its store is clean.

The server runs with the library of tests/support/power.py, is killed while clients submit and a worker reports, and
each of its files is cut to what was synced. TQ_POWER_ROUNDS sets the number of rounds (default 5), TQ_POWER_SEED the
dice. The worker is on another machine, as it were: it lives through all of it, so that a report whose acknowledgement
came too early would make its task run twice.
"""

import json
import os
import random
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest

from tests.server.process import command
from tests.support import processes
from tests.support.power import cut_power, environment
from tests.support.town import Town, town
from tq.errors import NotDone, Unauthorised, Unknown, Unreachable

ROUNDS: Final = int(os.environ.get("TQ_POWER_ROUNDS", "5"))
SEED: Final = int(os.environ.get("TQ_POWER_SEED", "1"))
CLIENTS: Final = 3
TASKS_IN_FLIGHT: Final = 40  # the worker cannot keep up with durable submits; more would only queue
# A kill between connect and handshake makes CPython's ssl drop a half-made socket without closing it.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def shim(library: Path) -> dict[str, str]:
    return environment(library)


def submit_until_cut(here: Town, prefix: str, acknowledged: dict[str, str], script: str) -> None:
    """Submit over one connection until it breaks, and note each id that was given."""
    try:
        with here.client(patience_s=0) as client:
            for number in range(TASKS_IN_FLIGHT):
                key = f"{prefix}-{number}"
                answer: Any = client.ask(command("sh", "-c", script, key=key, name=key))
                acknowledged[key] = answer.id
    except (Unreachable, Unknown, NotDone):
        return


def one_life(here: Town, number: int, dice: random.Random, script: str) -> dict[str, str]:
    """Start the server, submit from several clients, kill it at some moment, cut the power. Return what it gave."""
    acknowledged: dict[str, str] = {}
    sessions = here.workers[0].text().count(" connected ")
    here.server.start()
    if dice.random() < 0.7:
        processes.until(lambda: here.workers[0].text().count(" connected ") > sessions, "the worker is back")
    clients = [
        threading.Thread(target=submit_until_cut, args=(here, f"life{number}.{client}", acknowledged, script))
        for client in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    time.sleep(dice.choice([dice.uniform(0, 0.1), dice.uniform(0.1, 0.8)]))
    here.server.kill()
    for client in clients:
        client.join(processes.PATIENCE_S)
    assert not any(client.is_alive() for client in clients)
    cut_power(here.server.data, dice if number % 2 else None)
    return acknowledged


def assert_clean(here: Town, number: int) -> None:
    done = here.tq("store", "check", "-o", "json")
    assert done.status == 0, f"round {number}, TQ_POWER_SEED={SEED}: {done}"
    assert json.loads(done.out)["ok"]


@pytest.mark.timeout(120 + 10 * ROUNDS)
def test_after_every_power_cut_what_was_acknowledged_is_there(tmp_path: Path, shim: dict[str, str]) -> None:
    ran, all_acknowledged = tmp_path / "ran", dict[str, str]()
    dice = random.Random(SEED)
    with town(tmp_path, environ=shim) as here:
        here.worker(slots=3)
        # It holds something through all of it, so that it comes back within two seconds each time.
        long = here.submit("sh", "-c", f"while ! test -e {tmp_path}/flag; do sleep 0.2; done; echo $TQ_JOB >>{ran}")
        here.until_started(long)
        here.server.kill()
        cut_power(here.server.data)
        for number in range(ROUNDS):
            acknowledged = one_life(here, number, dice, f"echo $TQ_JOB >>{ran}")
            assert_clean(here, number)
            all_acknowledged |= acknowledged
            if dice.random() < 0.2:  # and once more where it opens
                killed_in_its_start(here, dice)
                assert_clean(here, number)
        ended = len(ran.read_text().split()) if ran.exists() else 0
        here.server.start()
        (tmp_path / "flag").touch()
        attempts = all_ended(here, all_acknowledged)
        assert here.wait(long) == 0
        assert (here.show(long)["attempt"], here.show(long)["losses"]) == (1, 0)
        runs = Counter(ran.read_text().split())
        assert {job: count for job, count in runs.items() if count != 1} == {}
        print(f"{ROUNDS} rounds, seed {SEED}: {len(all_acknowledged)} acknowledged, "
              f"{ended} ended between the cuts, attempts {dict(attempts)}")  # fmt: skip
        assert ended
        assert len(all_acknowledged) > ROUNDS
        here.check_store()


def killed_in_its_start(here: Town, dice: random.Random) -> None:
    """Begin a life, and end it at some moment before it listens or just after."""
    starting = subprocess.Popen(here.server.command, env=here.server.environ, stderr=subprocess.DEVNULL)
    time.sleep(dice.uniform(0.1, 0.6))
    starting.kill()
    starting.wait()
    cut_power(here.server.data)


def all_ended(here: Town, acknowledged: dict[str, str]) -> Counter[int]:
    """Wait until all that was acknowledged has succeeded, each in its first run; count attempt numbers."""
    attempts: Counter[int] = Counter()
    with here.client() as client:
        for key, job in acknowledged.items():
            processes.until(lambda job=job: here.task(client, job).get("phase") == "ended", f"{job} ends")
            shown = here.task(client, job)
            assert (shown["name"], shown["state"], shown["losses"]) == (key, "succeeded", 0), shown
            attempts[shown["attempt"]] += 1
    return attempts


@pytest.mark.timeout(120 + 10 * ROUNDS)
def test_a_power_cut_in_the_very_first_start_leaves_a_directory_that_can_be_served(
    tmp_path: Path, shim: dict[str, str]
) -> None:
    dice = random.Random(SEED)
    for number in range(max(3, ROUNDS // 10)):
        place = tmp_path / str(number)
        place.mkdir()
        here = Town(place)
        here.server.environ.update(shim)
        try:
            killed_in_its_start(here, dice)
            here.server.start()
            job = here.submit("true")
            here.server.kill()
            cut_power(here.server.data)
            here.server.start()
            assert here.show(job)["id"] == job
            here.check_store()
        except Unauthorised:
            pytest.fail("the admin token was lost")
        finally:
            here.close()


@pytest.mark.parametrize("sync", [1, 5, 8, 14])
def test_a_disk_that_fails_in_a_first_start_is_said_and_the_next_start_serves(
    tmp_path: Path, shim: dict[str, str], sync: int
) -> None:
    here = Town(tmp_path)
    here.server.environ.update({**shim, "TQ_SHIM_FAIL_SYNC": str(sync)})
    failed = here.server.run()
    assert failed.returncode == 74
    assert "Input/output error" in failed.stderr
    assert failed.stderr.splitlines()[-1] == "hint: see to the disk, then start again"

    del here.server.environ["TQ_SHIM_FAIL_SYNC"]
    try:
        here.server.start()
        assert here.submit("true") == "1"
        here.check_store()
    finally:
        here.close()
