"""Files of a store that dice damage, one or two at once: nothing is lost, changed or run again in silence.

TQ_DAMAGES sets how many stores are damaged (default 10).
"""

import os
import random
import re
import shutil
from pathlib import Path
from typing import Any, Final

import pytest

from tests.store.test_salvage import order, template  # noqa: F401 - the fixture
from tests.support.store import all_rows, disk_store, read_store
from tq.core.model import tables
from tq.core.model.task import State
from tq.core.repair import invariants
from tq.errors import TqError
from tq.store import salvage
from tq.store.check import check_bytes

DAMAGES: Final = int(os.environ.get("TQ_DAMAGES", "10"))
PAGE: Final = 4_096
KINDS: Final = (
    *3 * ("db/*.sst",),
    *2 * ("db/*.log",),
    "db/*.blob",
    "db/MANIFEST-*",
    "db/CURRENT",
    "watermark",
    "format",
)
BELIEVED: Final = (tables.JOB, tables.PROGRESS, tables.TASK, tables.RESULT, tables.KEY, tables.TOKEN, tables.ENTRIES)

Rows = dict[str, dict[Any, Any]]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120 + 20 * DAMAGES)]


def read(data: Path) -> Rows:
    with read_store(data) as store:
        return {table.name: dict(all_rows(store, table)) for table in BELIEVED}


def harm(dice: random.Random, data: Path) -> str:
    """Damage one file in some way; return what was done to which."""
    found = sorted(path for path in data.glob(dice.choice(KINDS)) if path.is_file())
    if not found:  # the last one was removed by the damage before
        return "nothing"
    path = dice.choice(found)
    raw = bytearray(path.read_bytes())
    at = dice.choice([dice.randrange(len(raw) or 1), min(dice.randrange(64), len(raw) - 1)])  # marks stand in front
    other = dice.choice(found)
    match what := dice.choice(["flipped", "page", "cut", "emptied", "removed", "longer", "garbage", "swapped"]):
        case "flipped" if raw:
            raw[at] ^= 1 << dice.randrange(8)
        case "page":
            raw[at // PAGE * PAGE : (at // PAGE + 1) * PAGE] = bytes(len(raw[at // PAGE * PAGE :][:PAGE]))
        case "cut" | "emptied":
            del raw[at if what == "cut" else 0 :]
        case "longer":
            raw += dice.randbytes(dice.choice([1, 5_000]))
        case "garbage":
            raw = bytearray(dice.randbytes(len(raw)))
        case "swapped":
            old = bytes(raw)
            raw = bytearray(other.read_bytes())
            other.write_bytes(old)
    if what == "removed":
        path.unlink()
    else:
        path.write_bytes(raw)
    return f"{path.name} {what}"


def is_served_as_it_was(data: Path, truth: Rows) -> bool:
    """Whether a server would start on it and a check would find nothing wrong; then every row must be there."""
    try:
        with disk_store(data) as store:
            if check_bytes(store).problems or invariants.check(store):
                return False
    except TqError:
        return False
    assert read(data) == truth
    return True


def silent(truth: Rows, found: Rows, losses: list[str]) -> list[str]:
    """Return what is not as it was, though nothing that was said tells of it."""
    said = "\n".join(losses)
    named = set(map(int, re.findall(r"job (\d+)", said)))
    if re.search(r"commits? .* (?:is|are) lost", said):  # what stood in them nobody can know
        return []
    wrong = []
    if not re.search(r"family bodies cannot be read|table file", said):
        wrong += [f"job {key} is gone" for key in truth["job"] if key not in found["job"] and key[0] not in named]
        wrong += [f"job {key} is back" for key in found["job"] if key not in truth["job"]]
    for key, task in truth["task"].items():
        progress = found["progress"].get(key[:2])
        if progress is None or progress.hold or key[0] in named or not task.state.is_terminal:
            continue
        now = found["task"].get(key)
        state: State = now.state if now is not None else progress.first
        if not state.is_terminal or (now is not None and now != task):
            wrong.append(f"task {key} was {task.state.name} and is {state.name}")
    return wrong


def test_whatever_happens_to_its_files_nothing_is_lost_or_run_again_in_silence(
    template: Path,  # noqa: F811 - the fixture
    tmp_path: Path,
) -> None:
    closed = tmp_path / "closed"
    shutil.copytree(template, closed)
    with disk_store(closed):
        pass  # all of it is in tables then, and turn keys prove nothing any more
    truth = read(closed)
    outcomes: set[str] = set()
    for seed in range(DAMAGES):
        dice = random.Random(seed)
        data, served = tmp_path / f"data-{seed}", tmp_path / f"served-{seed}"
        shutil.copytree(dice.choice([template, closed]), data)
        done = [harm(dice, data) for _ in range(dice.choice([1, 1, 2]))]
        print(seed, done)
        shutil.copytree(data, served)
        is_served = is_served_as_it_was(served, truth)
        dry = salvage.salvage(data, order(is_dry=True))
        salvaged = salvage.salvage(data, order())
        assert (dry is None) == (salvaged is None)
        assert is_served or salvaged is not None
        if salvaged is not None:
            assert dry is not None
            assert (salvaged.losses, salvaged.counts) == (dry.losses, dry.counts)
            assert silent(truth, read(data), salvaged.losses) == [], salvaged.losses
        assert salvage.salvage(data, order()) is None
        outcomes.add(f"{is_served} {salvaged is not None}")
        shutil.rmtree(data)
    assert len(outcomes) > 1, "some damages were none"
