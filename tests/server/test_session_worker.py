"""A worker's session: reconcile first, then attempts, reports, output, beats."""

from types import SimpleNamespace
from typing import Any

import pytest
import trio

from tests.server.hall import assigned, given_input, hello, open_hall
from tests.server.rig import submit
from tq import limits
from tq.core.model import tables
from tq.core.model.task import Cause, Phase, State
from tq.core.vocabulary import (
    Acknowledge,
    Assignment,
    AttemptRef,
    Cancel,
    Capacity,
    Drain,
    End,
    Held,
    Logs,
    Start,
    Upload,
    WorkerLost,
    Workers,
)
from tq.errors import StoreError
from tq.server.commit.intake import Request
from tq.server.sessions.worker_protocol import WorkerPeer
from tq.server.sessions.worker_session import WorkerSession
from tq.store.directory import Room
from tq.wire import messages as m
from tq.wire.body import Body
from tq.wire.codec import dumps
from tq.wire.connection import Connection
from tq.wire.held import tally


async def leased(hall: Any, worker: Any, **fields: Any) -> tuple[AttemptRef, m.Assign]:
    client = await hall.client("submit")
    await client.ask(submit(**fields))
    assign = await worker.receive(m.Assign)
    return assigned(assign)[0], assign


async def test_an_attempt_goes_to_the_worker_and_its_end_is_acknowledged_once_on_disk() -> None:
    async with open_hall() as hall:
        worker = await hall.worker()
        ref, assign = await leased(hall, worker)
        worker.send(m.Assigned(assign.delivery))
        hall.holds_flushes = True
        worker.send(m.Ended(5, (End(ref, 1, 0, 100),)))
        await trio.testing.wait_all_tasks_blocked()
        assert not any(isinstance(message, m.Acknowledged) for message in worker.seen)
        hall.let_flush()

        assert await worker.receive(m.Acknowledged) == m.Acknowledged(5)
        task = hall.store.get(tables.TASK, ref.task)
        assert task is not None
        assert task.state is State.SUCCEEDED


async def test_nothing_is_assigned_before_the_worker_has_said_what_it_holds() -> None:
    async with open_hall() as hall:
        worker = await hall.bare_worker()
        client = await hall.client("submit")
        await client.ask(submit())
        await trio.testing.wait_all_tasks_blocked()
        assert worker.seen == []
        worker.send(m.Reconcile(Capacity(slots=1), ()))
        await worker.receive(m.Assign)

        assert isinstance(worker.seen[0], m.Reconciled)


async def test_what_comes_behind_the_list_waits_until_the_list_is_answered() -> None:
    async with open_hall() as hall:
        first = await hall.worker()
        ref, _ = await leased(hall, first)
        first.cut()
        await first.ended()
        hall.intake.inlet().put([Request(WorkerLost(77, 1))])  # lost, and still claimable
        again = await hall.bare_worker()
        again.send(m.Reconcile(Capacity(slots=2), (Held(ref, Phase.STARTED),)))
        again.send(m.Output(ref, 1, 0, b"before the answer"))
        again.send(m.Ended(1, (End(ref, 1, 0, 100),)))
        await again.receive(m.Acknowledged)

        assert hall.store.output(ref.task, 1)[0].data == b"before the answer"


async def test_what_the_server_has_and_the_worker_does_not_hold_goes_back() -> None:
    async with open_hall() as hall:
        first = await hall.worker()
        ref, _ = await leased(hall, first)
        first.cut()
        await first.ended()
        again = await hall.worker()

        (new,) = assigned(await again.receive(m.Assign))
        assert (new.task, new.attempt) == (ref.task, 2)


async def test_what_a_worker_holds_and_is_not_current_is_stopped_or_settled() -> None:
    async with open_hall() as hall:
        stranger = AttemptRef(99, 0, 0, 1, 5)
        ended = AttemptRef(98, 0, 0, 1, 5)
        worker = await hall.worker(77, Held(stranger, Phase.STARTED), Held(ended, Phase.ENDED))

        assert worker.reconciled == m.Reconciled(((stranger, int(Cause.LOST)),), (ended,))


async def test_a_newer_connection_of_the_same_worker_closes_the_older() -> None:
    async with open_hall() as hall:
        older = await hall.worker()
        newer = await hall.worker()
        goodbye = await older.receive(m.Goodbye)
        ref, _ = await leased(hall, newer)

        assert "superseded" in goodbye.reason
        assert ref.attempt == 1


async def test_a_cancel_reaches_the_worker_behind_the_assignment() -> None:
    async with open_hall() as hall:
        worker = await hall.worker()
        ref, _ = await leased(hall, worker)
        client = await hall.client("submit")
        await client.ask(Cancel(("1",)))

        assert await worker.receive(m.StopAttempts) == m.StopAttempts((ref,), int(Cause.CANCELLED))
        kinds = [type(message) for message in worker.seen]
        assert kinds.index(m.Assign) < kinds.index(m.StopAttempts)


async def test_drain_is_passed_on() -> None:
    async with open_hall() as hall:
        worker = await hall.worker()
        client = await hall.client("admin")
        await client.ask(Drain("host"))
        assert await worker.receive(m.DrainWorker) == m.DrainWorker(True)
        await client.ask(Drain("host", on=False))

        assert await worker.receive(m.DrainWorker) == m.DrainWorker(False)


async def test_output_of_attempts_that_the_worker_does_not_hold_is_dropped_and_counted() -> None:
    async with open_hall() as hall:
        worker = await hall.worker()
        ref, assign = await leased(hall, worker)
        worker.send(m.Output(ref, 1, 0, b"mine"))
        worker.send(m.Output(AttemptRef(ref.job, 0, 0, 1, ref.lease + 1), 1, 0, b"wrong lease"))
        worker.send(m.Output(AttemptRef(ref.job, 0, 0, 2, ref.lease), 2, 0, b"wrong attempt"))
        worker.send(m.Output(AttemptRef(9, 0, 0, 1, 1), 1, 0, b"somebody else's"))
        worker.send(m.Assigned(assign.delivery))
        worker.send(m.Ended(1, (End(ref, 1, 0, 100),)))
        await worker.receive(m.Acknowledged)
        worker.send(m.Output(ref, 1, 0, b"too late"))
        await trio.testing.wait_all_tasks_blocked()

        assert [slot.data for slot in hall.store.output(ref.task, 1)] == [b"mine"]
        assert hall.registry.output_dropped == 4


@pytest.mark.parametrize(
    "message", [m.Output, lambda ref, *_: m.Output(ref, 3, 0, b""), lambda ref, *_: m.Output(ref, 1, 5, b"")]
)
async def test_output_that_no_slot_could_hold_ends_the_connection(message: Any) -> None:
    async with open_hall() as hall:
        worker = await hall.worker()
        ref, _ = await leased(hall, worker)
        worker.send(message(ref, 1, 0, b"x" * (limits.output_slot_bytes + 1)))

        assert (await worker.receive(m.Refused)).code == "protocol_error"
        assert hall.failure is None


async def test_a_nearly_full_disk_keeps_the_beginning_of_the_output_only() -> None:
    async with open_hall() as hall:
        worker = await hall.worker()
        ref, _ = await leased(hall, worker)
        hall.gate.room = Room.LOW
        worker.send(m.Output(ref, 1, 0, b"x" * 10_000))
        worker.send(m.Output(ref, 1, limits.output_slot_bytes, b"y"))
        await trio.testing.wait_all_tasks_blocked()

        assert [len(slot.data) for slot in hall.store.output(ref.task, 1)] == [4_096]


async def test_an_assignment_that_is_not_acknowledged_in_time_ends_the_connection(autojump_clock: Any) -> None:
    async with open_hall() as hall:
        worker = await hall.worker()
        await leased(hall, worker)
        await trio.sleep(limits.delivery_s_max - 1)
        for session in hall.registry.workers:
            session.check_deliveries(trio.current_time())
        await trio.testing.wait_all_tasks_blocked()
        assert not worker.has_ended.is_set()
        await trio.sleep(2)
        for session in hall.registry.workers:
            session.check_deliveries(trio.current_time())

        assert "not acknowledged" in (await worker.receive(m.Goodbye)).reason


async def test_two_beats_that_disagree_bring_the_list_and_give_back_what_is_not_held() -> None:
    async with open_hall() as hall:
        worker = await hall.worker()
        ref, assign = await leased(hall, worker)
        worker.send(m.Assigned(assign.delivery))
        worker.send(m.Beat(*tally((ref,))))
        worker.send(m.Beat())
        worker.send(m.Beat())
        await worker.receive(m.ReconcileAgain)
        worker.send(m.Reconcile(Capacity(slots=2), ()))
        await worker.receive(m.Reconciled)

        (again,) = assigned(await worker.receive(m.Assign))
        assert again.attempt == 2
        worker.send(m.Assigned(assign.delivery + 1))
        worker.send(m.Ended(1, (End(again, 1, 0, 100),)))
        assert await worker.receive(m.Acknowledged) == m.Acknowledged(1)


async def test_a_goodbye_loses_what_the_worker_still_held_at_once() -> None:
    async with open_hall() as hall:
        worker = await hall.worker()
        ref, _ = await leased(hall, worker)
        other = await hall.worker(78)
        worker.send(m.Goodbye("leaving"))

        (again,) = assigned(await other.receive(m.Assign))
        assert (again.task, again.attempt) == (ref.task, 2)
        assert 77 not in [lost.worker for _ in range(6) for lost in hall.lease_clock.tick()]


async def test_a_cut_worker_is_lost_by_the_lease_clock_and_not_before() -> None:
    async with open_hall() as hall:
        worker = await hall.worker()
        await leased(hall, worker)
        worker.cut()
        await worker.ended()
        lost = [lost for _ in range(4) for lost in hall.lease_clock.tick()]

        assert [one.worker for one in lost] == [77]


async def test_any_bytes_are_a_sign_of_life() -> None:
    async with open_hall() as hall:
        worker = await hall.worker()
        frame = Connection().send([m.Beat(number=7)])
        assert len(frame) > 5  # a message that takes longer than its sender would have: no beat, but bytes
        for at in range(len(frame)):
            for _ in range(2):
                assert hall.lease_clock.tick() == []
            await worker.link.stream.send_all(frame[at : at + 1])
            await trio.testing.wait_all_tasks_blocked()
        assert worker.beats == [m.Beat(number=7)]


async def test_each_beat_of_a_worker_is_answered_with_its_number_also_before_the_list() -> None:
    async with open_hall() as hall:
        worker = await hall.worker()
        for number in (3, 4):
            worker.send(m.Beat(number=number))
            assert await worker.next_beat() == m.Beat(number=number)


async def test_the_answer_to_a_beat_stands_for_one_of_the_servers_own() -> None:
    async with open_hall() as hall:
        worker = await hall.worker()
        worker.send(m.Beat(number=9))
        await worker.next_beat()
        (session,) = hall.registry.workers
        session.beat()
        session.beat()
        assert await worker.next_beat() == m.Beat()
        await trio.testing.wait_all_tasks_blocked()
        assert worker.beats == [m.Beat(number=9), m.Beat()]


async def test_a_worker_that_cannot_kill_what_it_runs_is_shown_as_degraded() -> None:
    async with open_hall() as hall:
        client, worker = await hall.client("read"), await hall.worker()
        worker.send(m.Beat(number=1, stuck=2))
        await worker.next_beat()
        (shown,) = (await client.ask(Workers())).items
        assert (shown["state"], shown["stuck"], shown["draining"]) == ("degraded", 2, False)
        worker.send(m.Beat(number=2))
        await worker.next_beat()
        (shown,) = (await client.ask(Workers())).items
        assert (shown["state"], shown["stuck"]) == ("up", 0)


async def test_a_worker_that_says_too_much_of_itself_is_refused_and_spoils_nobodys_list() -> None:
    async with open_hall() as hall:
        client, _ = await hall.client("read"), await hall.worker()
        for number in (78, 79):
            wordy = await hall.bare_worker(number)
            wordy.send(m.Reconcile(Capacity(slots=2, host="h" * 150_000), ()))
            refused = await wordy.receive(m.Refused)
            assert (refused.code, "offer_word_bytes_max" in refused.message) == ("protocol_error", True)

        assert [item["id"] for item in (await client.ask(Workers())).items] == [f"w{77:016x}"]


async def test_an_input_is_given_to_the_worker_that_needs_it_and_to_no_other() -> None:
    async with open_hall() as hall:
        client = await hall.client("submit")
        await client.ask(Upload("u", 0, b"input"))
        worker, other = await hall.worker(), await hall.worker(78)
        await client.ask(submit(stdin_key="u"))
        assign = await worker.receive(m.Assign)
        worker.send(m.GetBlob(assign.stdin, 0))
        worker.send(m.GetBlob(assign.stdin, 1))
        other.send(m.GetBlob(assign.stdin, 0))

        assert await worker.receive(m.Blob) == m.Blob(assign.stdin, 0, b"input")
        assert await worker.receive(m.Blob) == m.Blob(assign.stdin, 1, b"")
        assert (await other.receive(m.Refused)).code == "protocol_error"
        assert not any(isinstance(message, m.Blob) for message in other.seen)  # an empty one would pass for the input


@pytest.mark.parametrize("piece", [-1, 2**32, 2**63 - 1])
async def test_a_piece_that_no_input_has_is_a_breach(piece: int) -> None:
    async with open_hall() as hall:
        _, worker, assign = await given_input(hall)
        worker.send(m.GetBlob(assign.stdin, piece))

        assert (await worker.receive(m.Refused)).code == "protocol_error"


async def test_an_input_that_cannot_be_read_stops_the_server_and_not_just_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_hall() as hall:
        _, worker, assign = await given_input(hall)
        get = hall.store.get

        def broken(table: Any, key: Any) -> Any:
            if table is tables.BODY:
                raise StoreError("reading failed: input/output error")
            return get(table, key)

        monkeypatch.setattr(hall.store, "get", broken)
        worker.send(m.GetBlob(assign.stdin, 0))
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(hall.failure, StoreError)
        assert not any(isinstance(message, m.Blob | m.Refused) for message in worker.seen)


async def test_an_input_is_read_to_its_end_also_after_the_attempt_was_handed_back() -> None:
    async with open_hall() as hall:
        _, worker, assign = await given_input(hall)
        await (await hall.client("admin")).ask(Drain("host"))  # so that it is not leased to it again
        worker.send(m.HandedBack(1, tuple(assigned(assign))))
        await worker.receive(m.Acknowledged)
        worker.send(m.GetBlob(assign.stdin, 0))

        assert await worker.receive(m.Blob) == m.Blob(assign.stdin, 0, b"input")


async def test_an_input_of_an_attempt_that_was_kept_over_a_reconnect_is_given() -> None:
    async with open_hall() as hall:
        _, worker, assign = await given_input(hall)
        worker.cut()
        await worker.ended()
        again = await hall.worker(77, Held(assigned(assign)[0], Phase.ASSIGNED))
        again.send(m.GetBlob(assign.stdin, 0))

        assert await again.receive(m.Blob) == m.Blob(assign.stdin, 0, b"input")


async def test_a_worker_that_does_not_read_gets_everything_in_order_when_it_reads_again() -> None:
    async with open_hall() as hall:
        worker = await hall.bare_worker(is_slow=True)
        worker.send(m.Reconcile(Capacity(slots=40), ()))
        await worker.receive(m.Reconciled)
        worker.reads = trio.Event()
        client = await hall.client("submit")
        for number in range(40):
            await client.ask(submit(str(number), body=dumps(Body((b"echo", b"x" * 100_000), b"/"))))
        await client.ask(Cancel(("40",)))
        await trio.testing.wait_all_tasks_blocked()
        assert sum(isinstance(message, m.Assign) for message in worker.seen) < 10
        worker.reads.set()
        await worker.receive(m.StopAttempts)

        jobs = [ref.job for message in worker.seen if isinstance(message, m.Assign) for ref in assigned(message)]
        assert jobs == list(range(1, 41))


async def test_a_worker_is_not_asked_to_follow_before_it_has_the_attempt() -> None:
    async with open_hall() as hall:
        worker = await hall.bare_worker(is_slow=True)
        worker.send(m.Reconcile(Capacity(slots=20), ()))
        await worker.receive(m.Reconciled)
        worker.reads = trio.Event()
        client = await hall.client("submit")
        for number in range(20):
            await client.ask(submit(str(number), body=dumps(Body((b"echo", b"x" * 100_000), b"/"))))
        client.put(Logs("20", follow=True))
        await trio.testing.wait_all_tasks_blocked()
        worker.reads.set()
        await worker.receive(m.FollowOutput)

        jobs = [ref.job for message in worker.seen if isinstance(message, m.Assign) for ref in assigned(message)]
        assert jobs == list(range(1, 21))


async def test_what_cannot_be_sent_costs_the_connection_and_nothing_else() -> None:
    async with open_hall() as hall:
        worker = await hall.worker()
        (session,) = hall.registry.workers
        refs = tuple(Assignment(AttemptRef(1 << 60, 0, n, 1 << 60, 1 << 60), n) for n in range(8_000))
        session.carry_out(Start(77, session.peer.session, 1, 1, False, "default", "", b"", 0, refs))

        assert "could not send" in (await worker.receive(m.Goodbye)).reason
        assert hall.registry.effects_failed == 1
        assert (await hall.client("read")).welcome.role == "read"


async def test_what_is_sent_never_overtakes_what_had_to_wait() -> None:
    async with open_hall() as hall:
        sent: list[m.Message] = []
        link: Any = SimpleNamespace(has_room=False, send_nowait=lambda message, **_: sent.append(message))
        peer = WorkerPeer(77, (), lambda: 1)
        session = WorkerSession(hall.context, link, peer, "test")
        session.carry_out(Acknowledge(77, 1, 1))
        link.has_room = True
        session.carry_out(Acknowledge(77, 1, 2))

        assert sent == []


async def test_following_goes_on_after_the_worker_reconnects() -> None:
    async with open_hall() as hall:
        worker = await hall.worker()
        ref, _ = await leased(hall, worker)
        client = await hall.client("read")
        client.put(Logs("1", follow=True))
        await worker.receive(m.FollowOutput)
        worker.cut()
        await worker.ended()
        again = await hall.worker(77, Held(ref, Phase.STARTED))

        assert await again.receive(m.FollowOutput) == m.FollowOutput(ref, True)


async def test_a_predecessors_attempts_are_lost_at_once() -> None:
    async with open_hall() as hall:
        worker = await hall.worker()
        ref, _ = await leased(hall, worker)
        token = await hall.workers_token()
        heir = await hall.connect(hello(token.text, "worker", worker=79, predecessors=(77,)))
        heir.send(m.Reconcile(Capacity(slots=1), ()))

        (again,) = assigned(await heir.receive(m.Assign))
        assert (again.task, again.attempt) == (ref.task, 2)

        await worker.ended()  # it lived on, as somebody has copied its directory: it is told, and comes back
        back = await hall.worker(77, Held(ref, Phase.STARTED))
        assert hall.engine.live.workers.keys() == {77, 79}
        await leased(hall, back)


async def test_nobody_is_the_heir_of_another_token_s_worker() -> None:
    async with open_hall() as hall:
        worker = await hall.worker(slots=1)
        ref, assign = await leased(hall, worker)
        worker.send(m.Assigned(assign.delivery))
        other = await hall.token("worker")
        thief = await hall.connect(hello(other.text, "worker", worker=79, predecessors=(77,)))
        thief.send(m.Reconcile(Capacity(slots=1), (Held(ref, Phase.ENDED),)))
        assert (await thief.receive(m.Reconciled)).settled == (ref,), "it is told that nobody waits for that"
        thief.send(m.Ended(1, (End(ref, 1, 0, 100),)))
        await thief.receive(m.Acknowledged)
        assert hall.engine.live.holds(77, ref)
        assert hall.engine.live.counts["stale_reports"] == 2
