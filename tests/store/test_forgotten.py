"""What was forgotten leaves the disk: an array lives, ends, prints, is forgotten, and the directory is as if new."""

from pathlib import Path

from tests.support.store import disk_store
from tq.core.engine.engine import Engine
from tq.core.model.task import Cause
from tq.core.vocabulary import (
    Acted,
    AttemptRef,
    Capacity,
    Command,
    End,
    Forget,
    Join,
    Recover,
    Report,
    Start,
    Submit,
    Times,
)
from tq.store.disk import DiskStore

MEMBERS = 20_000
MIB = 1 << 20


class Driver:
    """Engine and store without a server: one turn for each call."""

    def __init__(self, store: DiskStore) -> None:
        self.store = store
        self.engine = Engine(store)
        self.held: list[AttemptRef] = []
        self._now_ms = 1

    def turn(self, command: Command) -> object:
        self._now_ms += 1
        turn = self.engine.begin(Times(self._now_ms, self._now_ms))
        answer = turn.apply(command)
        done = turn.finish()
        if done.changes:
            self.store.write(done.changes, sequence=done.sequence, epoch=done.epoch, wall_ms=done.wall_ms)
        for effect in done.effects:
            if isinstance(effect, Start):
                self.held.extend(assignment.attempt for assignment in effect.attempts)
        return answer

    def run_all(self) -> int:
        """End everything that is leased, with a line of output each, until nothing is left; return how many."""
        ended = 0
        while self.held:
            refs, self.held = self.held[:500], self.held[500:]
            for ref in refs:
                self.store.put_output(ref.task, ref.attempt, 1, 0, b"a line of output\n")
            self.turn(Report(5, 1, 1, tuple(End(ref, Cause.EXIT, 0, 600, b"u" * 20) for ref in refs)))
            ended += len(refs)
        return ended


def size_bytes(data: Path) -> int:
    return sum(path.stat().st_size for path in data.rglob("*") if path.is_file())


def test_a_forgotten_array_leaves_nothing_on_the_disk(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with disk_store(data) as store:
        driver = Driver(store)
        driver.turn(Recover(7))
        driver.turn(Join(5, 1, Capacity(slots=2)))
    empty_bytes = size_bytes(data)
    with disk_store(data) as store:
        driver = Driver(store)
        driver.turn(Join(5, 1, Capacity(slots=2)))
        driver.turn(Submit("", b"body" * 40, size=MEMBERS, is_array=True))
        assert driver.run_all() == MEMBERS
        store.flush(store.sequence)
        store.compact()
        assert size_bytes(data) > empty_bytes + MEMBERS * 10
        assert driver.turn(Forget(("1",))) == Acted(1)
        store.flush(store.sequence)
        store.compact()
    with disk_store(data) as store:
        store.compact()
    assert size_bytes(data) < empty_bytes + 1 * MIB
