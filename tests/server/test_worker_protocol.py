"""A worker's messages as commands, effects as messages, and what the session remembers between them."""

from itertools import count

import pytest
from msgspec.structs import replace

from tq import errors, limits
from tq.core import vocabulary as v
from tq.core.model.task import Cause, Phase
from tq.errors import ProtocolError
from tq.server.sessions.worker_protocol import WorkerPeer, agree, check_required, listed_max, reply
from tq.wire import held
from tq.wire import messages as m
from tq.wire.held import tally

WORKER = 77


def ref(member: int) -> v.AttemptRef:
    return v.AttemptRef(1, 0, member, 1, 10)


def start(*members: int, session: int = 1) -> v.Start:
    attempts = tuple(v.Assignment(ref(member), member + 1) for member in members)
    return v.Start(WORKER, session, 3, 2, True, "default", "", b"body", 0, attempts)


def fresh(*held: v.Held) -> WorkerPeer:
    numbers = count(1)
    peer = WorkerPeer(WORKER, (5,), lambda: next(numbers))
    peer.receive(m.Reconcile(v.Capacity(slots=2), held))
    return peer


def beat(*refs: v.AttemptRef) -> m.Beat:
    return m.Beat(*tally(refs))


def test_a_beat_makes_nobody_count(monkeypatch: pytest.MonkeyPatch) -> None:
    refs = [ref(member) for member in range(100)]
    peer, said = fresh(*(v.Held(one, Phase.STARTED) for one in refs)), beat(*refs)
    monkeypatch.setattr(held, "mix", lambda _: pytest.fail("a frame of beats would stop the server"))

    assert [peer.beat(said) for _ in range(3)] == [[], [], []]


def test_nothing_counts_before_the_list_of_what_the_worker_holds() -> None:
    peer = WorkerPeer(WORKER, (), lambda: 1)

    with pytest.raises(ProtocolError, match="came before the list"):
        peer.receive(m.Ended(1, ()))


def test_a_list_in_several_messages_makes_one_join() -> None:
    peer = WorkerPeer(WORKER, (5,), lambda: 4)
    first = peer.receive(m.Reconcile(v.Capacity(slots=1), (v.Held(ref(1), 2),), more=True))
    joined = peer.receive(m.Reconcile(v.Capacity(slots=2), (v.Held(ref(2), 1),), draining=True))

    assert first is None
    held = (v.Held(ref(1), 2), v.Held(ref(2), 1))
    assert joined == v.Join(WORKER, 4, v.Capacity(slots=2), held, predecessors=(5,), draining=True)


@pytest.mark.parametrize("wrong", [{"job": -1}, {"job": 0}, {"part": -1}, {"part": 2**32}, {"member": 2**32}])
def test_an_attempt_that_no_table_could_hold_is_no_word_of_the_protocol(wrong: dict[str, int]) -> None:
    odd = replace(ref(1), **wrong)
    words: list[m.Message] = [
        m.StartedAttempts((ref(2), odd)),
        m.Ended(1, (v.End(ref(2), 1, 0, 0), v.End(odd, 1, 0, 0))),
        m.HandedBack(1, (odd,)),
    ]
    for word in words:
        with pytest.raises(ProtocolError, match="out of range"):
            fresh().receive(word)
    with pytest.raises(ProtocolError, match="out of range"):
        fresh(v.Held(odd, 1))


@pytest.mark.parametrize("offer", [{"slots": -1}, {"slots": limits.slots_max + 1}, {"mem_bytes": -1}])
def test_an_offer_without_measure_is_refused(offer: dict[str, int]) -> None:
    peer = WorkerPeer(WORKER, (), lambda: 1)

    with pytest.raises(ProtocolError):
        peer.receive(m.Reconcile(v.Capacity(**{"slots": 1, **offer}), ()))


def test_a_result_that_would_not_fit_beside_others_is_refused() -> None:
    most = limits.result_inline_bytes_max
    assert fresh().receive(m.Ended(1, (v.End(ref(2), 1, 0, 0, bytes(most)),))) is not None

    with pytest.raises(ProtocolError, match="result_inline_bytes_max"):
        fresh().receive(m.Ended(1, (v.End(ref(2), 1, 0, 0, bytes(most + 1)),)))


def test_a_list_without_end_is_refused() -> None:
    peer = WorkerPeer(WORKER, (), lambda: 1)
    part = m.Reconcile(v.Capacity(slots=1), tuple(v.Held(ref(member), 1) for member in range(1_000)), more=True)

    for _ in range(listed_max // 1_000):
        peer.receive(part)
    with pytest.raises(ProtocolError, match="more than"):
        peer.receive(part)


def test_a_list_that_nobody_asked_for_is_refused() -> None:
    with pytest.raises(ProtocolError, match="unasked"):
        fresh().receive(m.Reconcile(v.Capacity(slots=1), ()))


def test_identity_comes_from_the_connection() -> None:
    peer = fresh(v.Held(ref(1), 2))
    end = v.End(ref(1), 1, 0, 5)

    assert peer.receive(m.Ended(9, (end,))) == v.Report(WORKER, 1, 9, (end,))
    assert peer.receive(m.HandedBack(10, (ref(2),), 3)) == v.Handback(WORKER, 1, 10, (ref(2),), 3)
    assert peer.receive(m.StartedAttempts((ref(1),))) == v.Started(WORKER, 1, (ref(1),))
    assert peer.receive(m.Draining()) == v.WorkerDrains(WORKER, 1)


@pytest.mark.parametrize(
    "message", [m.Ask(1, v.Status()), m.Welcome(1, "", 0, 0, 0, 0, ""), m.GetCA(), m.Reconciled((), ())]
)
def test_what_a_worker_may_not_send_is_refused(message: m.Message) -> None:
    with pytest.raises(ProtocolError):
        fresh().receive(message)


def test_effects_become_messages() -> None:
    peer = fresh()
    starting = start(1, 2)

    assert peer.carry_out(starting, 0) == [m.Assign(1, 3, 2, True, "default", "", b"body", 0, starting.attempts)]
    assert peer.carry_out(v.Stop(WORKER, 1, (ref(1),), Cause.CANCELLED), 0) == [m.StopAttempts((ref(1),), 5)]
    assert peer.carry_out(v.Recall(WORKER, 1, (ref(2),)), 0) == [m.RecallAttempts((ref(2),))]
    assert peer.carry_out(v.Acknowledge(WORKER, 1, 9), 0) == [m.Acknowledged(9)]
    assert peer.carry_out(v.DrainAsked(WORKER, 1, on=True), 0) == [m.DrainWorker(True)]
    assert peer.joined(v.Joined(((ref(1), 6),), (ref(2),))) == [m.Reconciled(((ref(1), 6),), (ref(2),))]


@pytest.mark.parametrize("effect", [start(1, session=2), v.Acknowledge(WORKER, 0, 1), v.Acknowledge(WORKER + 1, 1, 1)])
def test_effects_for_another_session_are_void(effect: v.Effect) -> None:
    assert fresh().carry_out(effect, 0) == []


def test_a_delivery_that_is_not_acknowledged_in_time_is_overdue() -> None:
    peer = fresh()
    peer.carry_out(start(1), 100.0)
    peer.carry_out(start(2), 110.0)

    assert not peer.is_overdue(100.0 + limits.delivery_s_max - 0.1)
    assert peer.is_overdue(100.0 + limits.delivery_s_max)
    peer.receive(m.Assigned(1))
    assert not peer.is_overdue(100.0 + limits.delivery_s_max)
    assert peer.is_overdue(110.0 + limits.delivery_s_max)


def test_an_acknowledgement_of_nothing_is_refused() -> None:
    peer = fresh()
    peer.carry_out(start(1), 0)
    peer.receive(m.Assigned(1))

    with pytest.raises(ProtocolError, match="not open"):
        peer.receive(m.Assigned(1))


def test_two_beats_in_a_row_that_disagree_ask_for_the_list_again() -> None:
    peer = fresh(v.Held(ref(1), Phase.STARTED))

    assert peer.beat(beat(ref(1))) == []
    assert peer.beat(beat()) == []
    assert peer.beat(beat(ref(1))) == []
    assert peer.beat(beat()) == []
    assert peer.beat(beat(ref(2))) == [m.ReconcileAgain()]
    assert peer.beat(beat()) == []  # asked once


def test_what_beats_are_compared_with_follows_the_workers_own_stream() -> None:
    peer = fresh(v.Held(ref(1), Phase.STARTED), v.Held(ref(9), Phase.ENDED))
    peer.carry_out(start(2, 3), 0)
    peer.beat(beat(ref(1)))
    assert peer.beats_wrong == 0
    peer.receive(m.Assigned(1))
    peer.beat(beat(ref(1), ref(2), ref(3)))
    assert peer.beats_wrong == 0
    peer.receive(m.Ended(1, (v.End(ref(1), 1, 0, 5),)))
    peer.receive(m.HandedBack(2, (ref(3),)))
    peer.beat(beat(ref(2)))
    assert peer.beats_wrong == 0


def test_a_list_sent_again_begins_a_session_of_its_own() -> None:
    peer = fresh(v.Held(ref(1), Phase.STARTED))
    peer.carry_out(start(2), 0)
    peer.receive(m.Assigned(1))
    peer.carry_out(start(3), 0)  # on its way
    peer.beat(beat())
    peer.beat(beat())

    joined = peer.receive(m.Reconcile(v.Capacity(slots=2), (v.Held(ref(2), Phase.ASSIGNED),)))

    assert isinstance(joined, v.Join)
    assert joined.session == 2
    # What is on its way counts as held; what the worker has lost (1) does not.
    assert joined.held == (v.Held(ref(2), Phase.ASSIGNED), v.Held(ref(3), Phase.ASSIGNED))
    assert peer.held == (ref(2), ref(3))
    # What the core decided for the old number, and nobody has sent, is void: the join gives it back.
    assert peer.carry_out(start(4, session=1), 0) == []
    assert peer.carry_out(v.Acknowledge(WORKER, 1, 1), 0) == []


def test_what_is_on_its_way_to_the_worker_brings_the_latest_width() -> None:
    peer = fresh()
    peer.carry_out(start(3), 0)  # of lane 3, two at once
    peer.beat(beat(ref(1)))
    peer.beat(beat(ref(1)))

    joined = peer.receive(m.Reconcile(v.Capacity(slots=2), (), widths=((3, 1), (4, 1))))

    assert isinstance(joined, v.Join)
    assert joined.widths == ((3, 2), (4, 1))


def test_output_is_taken_for_exactly_the_attempts_that_the_worker_was_given() -> None:
    peer = fresh(v.Held(ref(1), Phase.STARTED))
    peer.carry_out(start(2), 0)

    assert peer.knows(ref(1))
    assert peer.knows(ref(2))
    assert not peer.knows(v.AttemptRef(1, 0, 1, 2, 10))
    assert not peer.knows(v.AttemptRef(1, 0, 1, 1, 11))
    peer.receive(m.Ended(1, (v.End(ref(1), 1, 0, 5),)))
    assert not peer.knows(ref(1))


def test_answers_become_replies_and_errors_failures() -> None:
    assert reply(4, v.Done("x")) == m.Reply(4, v.Done("x"), False)
    assert reply(4, v.Done("x"), more=True) == m.Reply(4, v.Done("x"), True)
    assert reply(4, errors.KeyConflict("no", hint="why")) == m.Failed(4, "key_conflict", "no", "why")


@pytest.mark.parametrize("versions,chosen", [((1, 1), 1), ((1, 9), 1), ((0, 1), 1)])
def test_the_newest_version_that_both_speak_is_chosen(versions: tuple[int, int], chosen: int) -> None:
    assert agree(versions, "tq 0.1") == chosen


@pytest.mark.parametrize("versions", [(2, 3), (0, 0), (9, 1)])
def test_a_refusal_names_both_ranges(versions: tuple[int, int]) -> None:
    with pytest.raises(errors.VersionMismatch, match=f"{versions[0]}"):
        agree(versions, "tq 0.1")


def test_a_feature_that_is_required_and_unknown_is_refused() -> None:
    check_required(())
    with pytest.raises(errors.VersionMismatch, match="teleport"):
        check_required(("teleport",))
