"""One connection of a worker, over streams in memory and a clock that jumps."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio
import trio.testing

from tests.support.worker_state import CAPACITY, assign, end, ref
from tq import errors, limits
from tq.net.link import Link, open_link
from tq.wire import messages as m
from tq.wire.connection import Connection
from tq.worker.interpreter import Interpreter
from tq.worker.session import OtherLineage, Session
from tq.worker.state import WorkerState

Clock = trio.testing.MockClock
HELLO = m.Hello(m.VERSIONS, "test", "tqw_token", "worker", 7)
WELCOME = m.Welcome(1, "test", 77, 3, 5, 5_000, "worker")
BEAT_S = 5.0


class Rig:
    """A session, and the server's end of its link."""

    def __init__(self, session: Session, interpreter: Interpreter, server: Link, reconciled: list[m.Welcome]) -> None:
        self.session = session
        self.interpreter = interpreter
        self.server = server
        self.why = ""
        self.reconciled = reconciled
        self.has_ended = trio.Event()
        self._unread: list[m.Message] = []

    async def receive(self, kind: type[m.Message]) -> m.Message:
        while True:
            for message in self._unread:
                if isinstance(message, kind):
                    self._unread.remove(message)
                    return message
            self._unread += await anext(self.server)

    async def run(self) -> None:
        self.why = await self.session.run(await self.session.begin(HELLO))
        self.has_ended.set()


@asynccontextmanager
async def rig() -> AsyncIterator[Rig]:
    ours, theirs = trio.testing.memory_stream_pair()
    interpreter = Interpreter(WorkerState(CAPACITY), "0" * 16)
    interpreter.launcher_is_ready.set()
    reconciled: list[m.Welcome] = []
    async with open_link(ours, Connection()) as link, open_link(theirs, Connection(limits.frame_bytes_max)) as server:
        yield Rig(Session(interpreter, link, reconciled.append), interpreter, server, reconciled)


@asynccontextmanager
async def running() -> AsyncIterator[Rig]:
    """A session in which both sides agree."""
    async with rig() as made, trio.open_nursery() as nursery:
        nursery.start_soon(made.run)
        await made.receive(m.Hello)
        made.server.send_nowait(WELCOME)
        await made.receive(m.Reconcile)
        made.server.send_nowait(m.Reconciled((), ()))
        await trio.testing.wait_all_tasks_blocked()
        yield made
        nursery.cancel_scope.cancel()


async def beat_on(made: Rig) -> None:
    while True:
        await trio.sleep(BEAT_S)
        made.server.send_nowait(m.Beat())


# ---------------------------------------------------------------- the beginning


async def test_the_worker_says_who_it_is_and_then_what_it_holds(autojump_clock: Clock) -> None:
    async with rig() as made, trio.open_nursery() as nursery:
        nursery.start_soon(made.run)
        assert await anext(made.server) == [HELLO]
        made.server.send_nowait(WELCOME)
        assert await anext(made.server) == [m.Reconcile(CAPACITY, ())]
        assert made.reconciled == []
        made.server.send_nowait(m.Reconciled((), ()))
        await trio.testing.wait_all_tasks_blocked()
        assert made.reconciled == [WELCOME]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "code, error", [("unauthorised", errors.Unauthorised), ("version_mismatch", errors.VersionMismatch)]
)
async def test_a_refusal_is_the_error_that_its_code_names(
    code: str, error: type[errors.TqError], autojump_clock: Clock
) -> None:
    async with rig() as made:
        made.server.send_nowait(m.Refused(code, "no", "ask somebody"))
        with pytest.raises(error, match="no") as raised:
            await made.session.begin(HELLO)
        assert raised.value.hint == "ask somebody"


async def test_a_server_that_says_nothing_is_left(autojump_clock: Clock) -> None:
    async with rig() as made:
        with pytest.raises(errors.Unreachable, match="does not answer"):
            await made.session.begin(HELLO)


async def test_a_server_that_closes_instead_of_a_welcome_is_unreachable(autojump_clock: Clock) -> None:
    async with rig() as made:
        made.server.close()
        with pytest.raises(errors.Unreachable, match="closed"):
            await made.session.begin(HELLO)


async def test_anything_but_a_welcome_is_an_error(autojump_clock: Clock) -> None:
    async with rig() as made:
        made.server.send_nowait(m.Beat())
        with pytest.raises(errors.ProtocolError, match="Beat"):
            await made.session.begin(HELLO)


async def test_another_store_and_an_older_copy_of_the_same_one_are_noticed(autojump_clock: Clock) -> None:
    async with rig() as made:
        made.server.send_nowait(WELCOME)
        await made.session.begin(HELLO)
        made.session.check(0, 0)
        made.session.check(77, 3)
        made.session.check(77, 2)
        with pytest.raises(OtherLineage):
            made.session.check(78, 3)
        with pytest.raises(errors.Refused, match="older"):
            made.session.check(77, 4)


async def test_who_waits_for_a_launcher_waits_for_the_next_when_that_one_is_gone_again(autojump_clock: Clock) -> None:
    """Else what is assigned is taken, told to nobody, and reported lost: charged, though it never ran."""
    async with running() as made:
        first, made.interpreter.launcher_is_ready = made.interpreter.launcher_is_ready, trio.Event()
        assert first.is_set()
        made.server.send_nowait(assign(ref(1)))
        await trio.testing.wait_all_tasks_blocked()
        second, third = made.interpreter.launcher_is_ready, trio.Event()
        second.set()
        made.interpreter.launcher_is_ready = third
        await trio.testing.wait_all_tasks_blocked()
        assert made.interpreter.slots.held == {}

        third.set()
        await made.receive(m.Assigned)


# ---------------------------------------------------------------- the end


async def test_a_server_that_is_silent_is_left_in_time_to_be_back_before_it_gives_away_what_is_held(
    autojump_clock: Clock,
) -> None:
    """A connection may have died unnoticed while the way to the server is good: an address has changed."""
    async with running() as made:
        begun_s = trio.current_time()
        await made.has_ended.wait()
        assert "silent" in made.why
        assert 2 * BEAT_S <= trio.current_time() - begun_s < limits.missed_beats_max * BEAT_S


async def test_any_word_of_the_server_is_a_sign_of_life(autojump_clock: Clock) -> None:
    async with running() as made, trio.open_nursery() as nursery:
        nursery.start_soon(beat_on, made)
        await trio.sleep(20 * BEAT_S)
        assert not made.has_ended.is_set()
        nursery.cancel_scope.cancel()


async def test_a_worker_that_slept_has_missed_nothing(autojump_clock: Clock) -> None:
    async with running() as made:
        autojump_clock.autojump_threshold = float("inf")
        for _ in range(10):
            autojump_clock.jump(100 * BEAT_S)
            await trio.testing.wait_all_tasks_blocked()
        assert not made.has_ended.is_set()
        autojump_clock.autojump_threshold = 0


async def test_a_report_that_is_not_acknowledged_in_time_ends_the_connection(autojump_clock: Clock) -> None:
    async with running() as made, trio.open_nursery() as nursery:
        nursery.start_soon(beat_on, made)
        made.server.send_nowait(assign(ref(1)))
        await made.receive(m.Assigned)
        begun_s = trio.current_time()
        made.interpreter.carry_out(made.interpreter.slots.ended((end(ref(1)),)))
        await made.has_ended.wait()
        assert "acknowledge" in made.why
        assert limits.delivery_s_max <= trio.current_time() - begun_s <= limits.delivery_s_max + 3 * BEAT_S
        nursery.cancel_scope.cancel()


async def test_reports_that_are_acknowledged_end_nothing(autojump_clock: Clock) -> None:
    async with running() as made, trio.open_nursery() as nursery:
        nursery.start_soon(beat_on, made)
        for job in range(1, 20):
            made.server.send_nowait(assign(ref(job), delivery=job))
            await made.receive(m.Assigned)
            made.interpreter.carry_out(made.interpreter.slots.ended((end(ref(job)),)))
            report = await made.receive(m.Ended)
            await trio.sleep(BEAT_S)
            made.server.send_nowait(m.Acknowledged(report.delivery))
        assert not made.has_ended.is_set()
        nursery.cancel_scope.cancel()


async def test_the_server_s_farewell_is_why_it_ended(autojump_clock: Clock) -> None:
    async with running() as made:
        made.server.close(m.Goodbye("the server stops"))
        await made.has_ended.wait()
        assert made.why == "the server stops"


async def test_what_is_no_message_ends_the_session_and_nothing_else(
    capsys: pytest.CaptureFixture[str], autojump_clock: Clock
) -> None:
    async with running() as made:
        await made.server.stream.send_all(b"\x00\x00\x00\x01\xff")
        await made.has_ended.wait()
        assert "protocol_error" in capsys.readouterr().err
        assert made.interpreter.link is None


# ---------------------------------------------------------------- between


async def test_nothing_is_taken_from_the_server_while_there_is_no_launcher(autojump_clock: Clock) -> None:
    async with running() as made:
        made.interpreter.launcher_is_ready = trio.Event()
        made.server.send_nowait(assign(ref(1)))
        await trio.testing.wait_all_tasks_blocked()
        assert made.interpreter.slots.held == {}
        made.interpreter.launcher_is_ready.set()
        await made.receive(m.Assigned)
        assert ref(1) in made.interpreter.slots.held


async def test_the_session_s_end_puts_unacknowledged_results_on_the_way_to_the_disk(autojump_clock: Clock) -> None:
    async with running() as made:
        made.server.send_nowait(assign(ref(1)))
        await made.receive(m.Assigned)
        made.interpreter.carry_out(made.interpreter.slots.ended((end(ref(1)),)))
        await made.receive(m.Ended)
        assert made.interpreter.to_disk == []
        made.server.close()
        await made.has_ended.wait()
        assert [instruction.message.ends for _, instruction in made.interpreter.to_disk] == [(end(ref(1)),)]


async def test_any_amount_of_results_goes_over_one_connection(autojump_clock: Clock) -> None:
    ends = tuple(end(ref(job)) for job in range(1, 101))
    value = b"x" * limits.result_bytes_max
    async with rig() as made, trio.open_nursery() as nursery:
        made.interpreter.slots.outbox.report(tuple(msgspec.structs.replace(one, value=value) for one in ends))
        nursery.start_soon(made.run)
        made.server.send_nowait(WELCOME)
        made.server.send_nowait(m.Reconciled((), ()))
        seen: list[int] = []
        while len(seen) < len(ends):
            message = await made.receive(m.Ended)
            assert isinstance(message, m.Ended)
            seen += [one.attempt.job for one in message.ends]
        assert seen == list(range(1, 101))
        assert not made.has_ended.is_set()
        nursery.cancel_scope.cancel()


# ---------------------------------------------------------------- until when the server has heard us


@pytest.fixture
def _virtual_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tq.worker.session.boot_s", trio.current_time)


@pytest.mark.usefixtures("_virtual_boot")
async def test_the_answer_to_the_list_is_worth_three_beats_from_when_it_was_sent(autojump_clock: Clock) -> None:
    async with rig() as made, trio.open_nursery() as nursery:
        nursery.start_soon(made.run)
        made.server.send_nowait(WELCOME)
        await made.receive(m.Reconcile)
        sent_s = trio.current_time()
        await trio.sleep(2.0)
        assert made.interpreter.heard_until_s == 0.0
        made.server.send_nowait(m.Reconciled((), ()))
        await trio.testing.wait_all_tasks_blocked()
        assert made.interpreter.heard_until_s == sent_s + 3 * BEAT_S
        nursery.cancel_scope.cancel()


@pytest.mark.usefixtures("_virtual_boot")
async def test_what_an_older_session_was_worth_counts_no_more(autojump_clock: Clock) -> None:
    """A restart of the server may have made the beats shorter."""
    async with rig() as made, trio.open_nursery() as nursery:
        made.interpreter.renew(1_000_000.0)
        nursery.start_soon(made.run)
        made.server.send_nowait(WELCOME)
        await made.receive(m.Reconcile)
        sent_s = trio.current_time()
        made.server.send_nowait(m.Reconciled((), ()))
        await trio.testing.wait_all_tasks_blocked()
        assert made.interpreter.heard_until_s == sent_s + 3 * BEAT_S
        nursery.cancel_scope.cancel()


@pytest.mark.usefixtures("_virtual_boot")
async def test_the_list_begins_a_session_with_shorter_beats_though_nobody_has_answered_it(
    autojump_clock: Clock,
) -> None:
    """Once the server has it, it waits for three of its own beats; this worker may never hear that it has."""
    async with rig() as made, trio.open_nursery() as nursery:
        made.interpreter.renew(1_000_000.0)
        nursery.start_soon(made.run)
        made.server.send_nowait(WELCOME)
        await made.receive(m.Reconcile)
        assert made.interpreter.heard_until_s == trio.current_time() + 3 * BEAT_S
        nursery.cancel_scope.cancel()


@pytest.mark.usefixtures("_virtual_boot")
async def test_a_list_that_nobody_has_answered_adds_nothing(autojump_clock: Clock) -> None:
    async with rig() as made, trio.open_nursery() as nursery:
        made.interpreter.renew(trio.current_time() + 1.0)
        nursery.start_soon(made.run)
        made.server.send_nowait(WELCOME)
        until_s = made.interpreter.heard_until_s
        await made.receive(m.Reconcile)
        assert made.interpreter.heard_until_s == until_s
        nursery.cancel_scope.cancel()


@pytest.mark.usefixtures("_virtual_boot")
async def test_an_answered_beat_is_worth_three_beats_from_when_it_was_sent(autojump_clock: Clock) -> None:
    async with running() as made:
        first = await made.receive(m.Beat)
        sent_s = trio.current_time()
        second = await made.receive(m.Beat)
        assert isinstance(first, m.Beat)
        assert isinstance(second, m.Beat)
        assert second.number == first.number + 1
        made.server.send_nowait(m.Beat(number=first.number))
        await trio.testing.wait_all_tasks_blocked()
        assert made.interpreter.heard_until_s == pytest.approx(sent_s + 3 * BEAT_S)


@pytest.mark.usefixtures("_virtual_boot")
@pytest.mark.parametrize("number", [0, 99])
async def test_a_beat_that_answers_none_of_ours_is_worth_nothing(number: int, autojump_clock: Clock) -> None:
    async with running() as made:
        before_s = made.interpreter.heard_until_s
        await made.receive(m.Beat)
        made.server.send_nowait(m.Beat(number=number))
        await trio.testing.wait_all_tasks_blocked()
        assert made.interpreter.heard_until_s == before_s


@pytest.mark.usefixtures("_virtual_boot")
async def test_the_answer_to_an_older_beat_takes_nothing_back(autojump_clock: Clock) -> None:
    async with running() as made:
        first, second = await made.receive(m.Beat), await made.receive(m.Beat)
        assert isinstance(first, m.Beat)
        assert isinstance(second, m.Beat)
        for number in (second.number, first.number):
            made.server.send_nowait(m.Beat(number=number))
            await trio.testing.wait_all_tasks_blocked()
            assert made.interpreter.heard_until_s == pytest.approx(trio.current_time() + 3 * BEAT_S)
