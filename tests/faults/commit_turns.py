"""A process that commits turns to a store and prints what is acknowledged, until it is killed.

    python commit_turns.py DATA SEED

Prints `open N` (the last turn that it found), then `ack N` after each flush. Like the server it writes the next turn
while the last one is being flushed. What a turn writes follows from its number alone (tests/faults/test_power_cut.py).
"""

import os
import random
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

from tq.core.model.tables import BODY, LANE_NAME, READY, TASK
from tq.core.model.task import State, Task
from tq.errors import StoreError
from tq.limits import KIB
from tq.store import rocks, turns
from tq.store.directory import hold_directory
from tq.store.disk import DiskStore, open_store


def changes(turn: int) -> dict[Any, dict[Any, Any]]:
    """Return the changes of a turn: new rows, a row that every turn replaces, and the removal of older ones."""
    return {
        TASK: {(turn, 0, member): Task(State.RUNNING, lease=turn) for member in range(3)},
        READY: {(1, 100, turn, part): True for part in range(40)} | {(1, 100, max(turn - 5, 0), 0): None},
        BODY: {(turn, 0): random.Random(turn).randbytes(700)},
        LANE_NAME: {("latest",): turn},
    }


def output(turn: int) -> bytes:
    """Return the output that is put before the turn of this number."""
    return b"%d " % turn * 500


def make_small() -> None:
    """Make memtables and trims so small that every round has several logs, flushes and trims."""
    for family in rocks.memtable_bytes:
        rocks.memtable_bytes[family] = (64 if family == "queues" else 256) * KIB
    turns._TURNS = 100  # type: ignore[misc]


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def run(store: DiskStore, dice: random.Random) -> None:
    """Commit until killed; a turn is acknowledged once its flush is done, while the next ones are written."""
    flushing: threading.Thread | None = None
    while True:
        for _ in range(dice.randint(1, 4)):
            turn = store.sequence + 1
            store.put_output((turn, 0, 0), 1, 1, 0, output(turn))
            store.write(changes(turn), sequence=turn, epoch=1, wall_ms=turn)
        if flushing is not None:
            flushing.join()
        flushing = threading.Thread(target=flush, args=(store, store.sequence))
        flushing.start()


def flush(store: DiskStore, sequence: int) -> None:
    try:
        store.flush(sequence)
    except StoreError as error:
        give_up(error)
    say(f"ack {sequence}")


def give_up(error: StoreError) -> NoReturn:
    """End at once: whichever of writing and flushing sees the failure first."""
    say(f"failed {error}")
    os._exit(error.exit_status)


def main() -> None:
    """Open the store of DATA and commit."""
    make_small()
    with hold_directory(Path(sys.argv[1])) as lock:
        store = open_store(lock)
        say(f"open {store.sequence}")
        try:
            run(store, random.Random(int(sys.argv[2])))
        except StoreError as error:
            give_up(error)


if __name__ == "__main__":
    main()
