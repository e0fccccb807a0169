"""Broken promises about workers, as in test_mutations.py: silence, losses, drains, output; and of arrays that end."""

from collections.abc import Sequence

import pytest

from tests.sim.faults import NAMES
from tests.sim.test_mutations import SEEDS_MAX, Break, caught
from tq.core.engine import report
from tq.core.placement.live import LiveWorker
from tq.server.commit.lease_clock import LeaseClock
from tq.worker.instructions import StopAfter
from tq.worker.interpreter import Interpreter
from tq.worker.state import WorkerState


def lease_to_who_is_not_heard(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LiveWorker, "is_heard", property(lambda self: self.session is not None))


def lose_a_worker_a_beat_early(patch: pytest.MonkeyPatch) -> None:
    joined = LeaseClock.joined

    def impatient(self: LeaseClock, worker: int, session: int) -> None:
        joined(self, worker, session)
        self._watched[worker].missed_max -= 1

    patch.setattr(LeaseClock, "joined", impatient)


def keep_to_no_deadline(patch: pytest.MonkeyPatch) -> None:
    receive = WorkerState.receive
    patch.setattr(
        WorkerState,
        "receive",
        lambda self, message: [one for one in receive(self, message) if not isinstance(one, StopAfter)],
    )


def let_a_report_overtake_its_output(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Interpreter, "_say", lambda self, message: self.link and self.link.answer_nowait(message))


def never_end_an_array_early(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(report, "_check_fails", lambda step, key: None)


CUTS = ("worker cut", "worker partition")
BREAKS: tuple[tuple[Break, Sequence[str]], ...] = (
    (lease_to_who_is_not_heard, CUTS),
    (lose_a_worker_a_beat_early, NAMES),
    (keep_to_no_deadline, ("worker drained, then cut", *CUTS)),
    (let_a_report_overtake_its_output, NAMES),
    (never_end_an_array_early, NAMES),
)


@pytest.mark.parametrize("broken, kinds", BREAKS, ids=[broken.__name__ for broken, _ in BREAKS])
def test_a_broken_promise_about_workers_is_caught(
    broken: Break, kinds: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch)

    assert caught(SEEDS_MAX, kinds)
