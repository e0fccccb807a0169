"""Subscriptions of `wait`: one read at a time, of what changed; the end when everything is where it should be."""

import tracemalloc

import pytest

from tq.core.read.waits import is_there
from tq.core.vocabulary import Outcome, Wait, Waited
from tq.errors import NotDone
from tq.limits import frame_bytes_max, result_inline_bytes_max, wait_ids_all_max, wait_ids_of_token_max
from tq.server.commit.intake import Intake, Request
from tq.server.sessions.watch import Waiting, Watch, replies
from tq.wire.codec import encode
from tq.wire.messages import Reply


class Asker:
    """Answers for a core that knows how far each job is."""

    def __init__(self, *ids: str, until: str = "done") -> None:
        self.asked: list[Wait] = []
        self.states = dict.fromkeys(ids, "queued")
        self.phases: dict[str, str] = {}
        self.intake = Intake()
        self.waiting = Waiting(Wait(ids, until), self.intake.inlet(), self._request)
        self.watch = Watch()
        self.watch.subscribe(self.waiting)

    def _request(self, asked: Wait) -> Request:
        self.asked.append(asked)
        return Request(asked)

    def changed(self, job: int) -> list[Request]:
        return [request for _, request in self.watch.changed(job)]

    def answer(self, asked: Wait) -> tuple[bool, list[str]]:
        outcomes = tuple(
            Outcome(text, self.states[text], self.phases.get(text, ""), ended=int(self.states[text] == "succeeded"))
            for text in asked.ids
        )
        done = all(is_there(outcome, asked.until) for outcome in outcomes)
        finished, news = self.waiting.read(asked, Waited(done, outcomes))
        return finished, [outcome.id for outcome in news]

    def first(self) -> tuple[bool, list[str]]:
        return self.answer(self.waiting.wait)


def test_what_is_done_already_is_answered_at_once() -> None:
    asker = Asker("1")
    asker.states["1"] = "succeeded"

    assert asker.first() == (True, ["1"])
    assert asker.asked == []


def test_a_change_asks_again_for_the_ids_of_that_job_only() -> None:
    asker = Asker("1", "2", "3.4")
    assert asker.first() == (False, ["1", "2", "3.4"])
    asker.changed(9)
    assert asker.asked == []
    asker.changed(3)

    assert asker.asked == [Wait(("3.4",), "done")]


def test_changes_during_a_read_make_one_more_read() -> None:
    asker = Asker("1", "2")
    asker.first()
    asker.changed(1)
    asker.changed(1)
    asker.changed(2)
    assert len(asker.asked) == 1

    asker.answer(asker.asked.pop())
    assert asker.asked == [Wait(("1", "2"), "done")]


def test_a_change_before_the_first_answer_makes_one_more_read() -> None:
    asker = Asker("1")
    assert asker.changed(1) == []  # the first read is under way, and may have been made already

    assert asker.first() == (False, ["1"])
    assert asker.asked == [Wait(("1",), "done")]
    assert asker.intake.take() == Request(Wait(("1",), "done"))


def test_what_a_change_asks_for_is_made_in_its_turn_and_not_put_anywhere() -> None:
    asker = Asker("1")
    asker.first()

    assert asker.changed(1) == [Request(Wait(("1",), "done"))]
    assert asker.intake.is_empty


def test_much_to_read_waits_for_a_turn_of_its_own() -> None:
    few = Asker(*(f"1.{number}" for number in range(50)))
    few.first()
    assert len(few.changed(1)) == 1
    many = Asker(*(f"1.{number}" for number in range(51)))
    many.first()
    assert many.changed(1) == []
    taken = many.intake.take()
    assert taken is not None
    assert taken.command == many.asked.pop()


def test_an_id_that_is_done_is_not_read_again_before_the_end() -> None:
    asker = Asker("1", "2")
    asker.first()
    asker.states["1"] = "succeeded"
    asker.changed(1)
    assert asker.answer(asker.asked.pop()) == (False, ["1"])
    asker.changed(1)

    assert asker.asked == []


def test_the_end_is_seen_in_one_read_of_everything() -> None:
    asker = Asker("1", "2")
    asker.first()
    for job in (1, 2):
        asker.states[str(job)] = "succeeded"
        asker.changed(job)
        asker.answer(asker.asked.pop())

    assert asker.asked == [Wait(("1", "2"), "done")]
    assert asker.answer(asker.asked.pop()) == (True, ["1", "2"])


def test_a_task_that_was_retried_meanwhile_is_waited_for_again() -> None:
    asker = Asker("1", "2")
    asker.first()
    for job in (1, 2):
        asker.states[str(job)] = "succeeded"
        asker.changed(job)
        asker.answer(asker.asked.pop())
    asker.states["1"] = "queued"

    assert asker.answer(asker.asked.pop()) == (False, ["1"])
    asker.states["1"] = "succeeded"
    asker.changed(1)
    asker.answer(asker.asked.pop())
    assert asker.answer(asker.asked.pop()) == (True, ["1", "2"])


def test_waiting_until_it_runs_ends_when_it_runs() -> None:
    asker = Asker("1", until="running")
    asker.first()
    asker.states["1"] = "running"
    asker.changed(1)

    assert asker.answer(asker.asked.pop())[0] is True


def test_what_stands_in_line_at_a_worker_does_not_run_yet() -> None:
    asker = Asker("1", until="running")
    asker.first()
    asker.states["1"], asker.phases["1"] = "running", "assigned"
    asker.changed(1)
    assert asker.answer(asker.asked.pop()) == (False, ["1"])

    asker.phases["1"] = "started"
    asker.changed(1)
    assert asker.answer(asker.asked.pop()) == (True, ["1"])


def test_several_that_wait_for_one_job_are_told_in_the_order_of_their_coming() -> None:
    first, second, third = (Asker("1", "2") for _ in range(3))
    watch = first.watch
    for one in (second, third):
        watch.subscribe(one.waiting)
    for one in (first, second, third):
        one.first()
    inlets = [inlet for inlet, _ in watch.changed(1)]
    assert inlets == [one.waiting.inlet for one in (first, second, third)]

    watch.unsubscribe(second.waiting)
    assert len(list(watch.changed(2))) == 0  # each has a read under way
    watch.unsubscribe(first.waiting)
    watch.unsubscribe(third.waiting)
    assert len(watch) == 0


def test_ids_waited_for_are_bounded_for_a_token_and_for_all() -> None:
    def waiting(token: str, count: int) -> Waiting:
        asker = Asker("1")
        return Waiting(Wait(("1",) * count), asker.intake.inlet(), asker._request, token)

    watch = Watch()
    full = [waiting(f"t{number}", wait_ids_of_token_max) for number in range(wait_ids_all_max // wait_ids_of_token_max)]
    for one in full:
        watch.subscribe(one)
    with pytest.raises(NotDone, match=f"one token may have {wait_ids_of_token_max} ids waited for"):
        watch.subscribe(waiting("t0", 1))
    rest = waiting("other", wait_ids_all_max % wait_ids_of_token_max)
    watch.subscribe(rest)
    refused = waiting("last", 1)
    with pytest.raises(NotDone, match=f"all clients may have {wait_ids_all_max} ids waited for"):
        watch.subscribe(refused)
    watch.unsubscribe(refused)  # it is none, and gives nothing back
    for one in full:
        watch.unsubscribe(one)
        watch.unsubscribe(one)
    watch.subscribe(waiting("t0", wait_ids_of_token_max))


@pytest.mark.parametrize("name", ["{0}", "7.{0}"])
def test_an_id_waited_for_costs_at_most_200_bytes(name: str) -> None:
    asker, watch = Asker("1"), Watch()
    tracemalloc.start()
    try:
        waits, first = [], 10**6
        for _ in range(4):
            texts = tuple(name.format(number) for number in range(first, first + 10_000))
            waits.append(Waiting(Wait(texts), asker.intake.inlet(), asker._request))
            del texts
            watch.subscribe(waits[-1])
            answer = Waited(False, tuple(Outcome(text, "queued") for text in waits[-1].wait.ids))
            assert len(waits[-1].read(waits[-1].wait, answer)[1]) == 10_000
            del answer
            first += 10_000 if name == "{0}" else 0
        assert tracemalloc.get_traced_memory()[0] / 40_000 <= 200
    finally:
        tracemalloc.stop()


def test_who_is_unsubscribed_is_not_told_and_leaves_nothing_behind() -> None:
    asker = Asker("1", "2")
    asker.first()
    asker.watch.unsubscribe(asker.waiting)
    asker.watch.unsubscribe(asker.waiting)
    asker.changed(1)

    assert asker.asked == []
    assert len(asker.watch) == 0


@pytest.mark.parametrize("reason", ["", "no worker allows " + "\N{MATHEMATICAL SCRIPT CAPITAL A}" * 255])
@pytest.mark.parametrize("usage", [b"", b"x" * result_inline_bytes_max])
def test_an_answer_too_long_for_a_frame_goes_in_pieces_and_the_last_one_says_so(usage: bytes, reason: str) -> None:
    outcomes = [
        Outcome(f"{10**17 + number}.{2**63 - 1}", "succeeded", "stopping", -(2**63), "worker_trouble", 2**63 - 1,
                2**63 - 1, 2**63 - 1, 2**63 - 1, usage, reason)
        for number in range(3_000)
    ]  # fmt: skip
    pieces = replies(True, outcomes)

    assert [more for _, more in pieces] == [True] * (len(pieces) - 1) + [False]
    assert len(pieces) > 1
    assert all(len(encode([Reply(1, waited)])) < frame_bytes_max for waited, _ in pieces)
    assert [outcome for waited, _ in pieces for outcome in waited.outcomes] == outcomes
    assert replies(False, outcomes[:1]) == [(Waited(False, (outcomes[0],)), True)]
