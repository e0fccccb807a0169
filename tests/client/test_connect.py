"""The Python API over a connection that breaks, refuses and comes back: with trio and without, call for call."""

import asyncio
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import tq.client
from tq import limits
from tq.client import target
from tq.client.api import Client
from tq.core import vocabulary as v
from tq.errors import (
    BadRequest,
    ConfigurationError,
    KeyConflict,
    NotAllowed,
    NotDone,
    ProtocolError,
    Stopping,
    TimedOut,
    Unauthorised,
    Unknown,
    Unreachable,
    VersionMismatch,
)
from tq.wire import plain

Environ = dict[str, str]


def result(value: Any, state: str = "succeeded") -> Callable[[Any], v.Answer]:
    return lambda _: v.Results((v.Result("42", state, 1, 0, "exit", plain.dumps(value, 1_000, "")),))


def outcome(state: str = "succeeded", *, done: bool = True) -> v.Waited:
    return v.Waited(done, (v.Outcome("42", state, ended=int(done)),))


async def test_a_call_is_submitted_waited_for_and_read(connect, server):
    server.says[v.Submit] = lambda _: v.Submitted("42", warning="no worker is connected")
    server.says[v.Wait] = lambda _: [outcome("running", done=False), outcome()]
    server.says[v.GetResults] = result({"n": 1})
    async with connect() as client:
        job = await client.submit("m:f", 1)
        assert (job.id, job.warning, job.existed) == ("42", "no worker is connected", False)
        assert await job.result() == {"n": 1}
    assert [type(command) for command in server.asked] == [v.Submit, v.Wait, v.GetResults]


async def test_a_lost_connection_is_made_again_and_the_same_is_asked(connect, server):
    server.says[v.Submit] = lambda _: v.Submitted("42")
    server.cuts = 2
    async with connect() as client:
        assert (await client.submit("m:f")).id == "42"
    first, *others = server.asked
    assert len(others) == 2
    assert all(command == first for command in others)
    assert server.hellos[1].lineage == server.lineage


async def test_a_wait_goes_on_after_a_cut_in_its_middle(connect, server):
    says = iter([[outcome("running", done=False), ...], [outcome()]])
    server.says[v.Wait] = lambda _: next(says)
    server.says[v.GetResults] = result(7)
    async with connect() as client:
        assert await client.job("42").result() == 7


async def test_who_does_not_wait_any_longer_may_ask_again(connect, server):
    def wait(_: object) -> v.Answer:
        server.is_mute = True  # it is the first of several answers, and no other comes
        return v.Waited(False, (v.Outcome("42", "queued", reason="no connected worker allows the module m"),))

    server.says[v.Wait] = wait
    server.says[v.GetResults] = result(7)
    async with connect() as client:
        job = client.job("42")
        with pytest.raises(TimedOut, match=r"42 has not ended within 0\.05 s: no connected worker allows") as caught:
            await job.result(timeout_s=0.05)
        assert isinstance(caught.value, TimeoutError)
        server.is_mute = False
        server.says[v.Wait] = lambda _: outcome()
        assert await job.result(timeout_s=30) == 7
    assert not any(isinstance(asked, v.Cancel) for asked in server.asked)
    assert len(server.hellos) == 1


async def test_without_any_time_what_has_ended_has_ended(connect, server):
    server.says[v.Wait] = lambda _: outcome()
    async with connect() as client:
        await client.job("42").wait(timeout_s=0)


async def test_a_server_that_is_away_does_not_prolong_a_wait(connect, server, monkeypatch):
    monkeypatch.setattr(limits, "look_s", 0.1)
    async with connect(patience_s=600) as client:
        server.close()
        with pytest.raises(TimedOut):
            await client.job("42").wait(timeout_s=0.05)


@pytest.mark.parametrize("timeout_s", ["5", True, float("nan")])
async def test_a_time_that_is_none_is_refused(connect, server, timeout_s):
    async with connect() as client:
        with pytest.raises(BadRequest, match="timeout_s cannot be"):
            await client.job("42").wait(timeout_s=timeout_s)
    assert server.asked == []


async def test_what_the_server_refuses_is_raised_as_what_it_is(connect, server):
    def refuse(_: object) -> v.Answer:
        raise KeyConflict("key 'k' was used", hint="use another")

    server.says[v.Submit] = refuse
    async with connect() as client:
        with pytest.raises(KeyConflict, match="was used") as caught:
            await client.submit("m:f", key="k")
    assert caught.value.hint == "use another"


async def test_a_server_that_stops_in_the_middle_of_a_call_is_asked_when_it_is_back(connect, server):
    """Ended by a signal it says so before it closes, which is no other restart than one by a power cut."""
    is_back = False

    def submitted(_: object) -> v.Answer:
        nonlocal is_back
        if not is_back:
            is_back = True
            raise Stopping("the server is stopping", hint="try again in a moment")
        return v.Submitted("42")

    server.says[v.Submit] = submitted
    async with connect() as client:
        assert (await client.submit("m:f")).id == "42"
    first, again = server.asked
    assert first == again


async def test_a_server_that_can_take_nothing_now_says_so_at_once(connect, server):
    def full(_: object) -> v.Answer:
        raise NotDone("the disk is nearly full")

    server.says[v.Submit] = full
    async with connect() as client:
        with pytest.raises(NotDone, match="nearly full"):
            await client.submit("m:f")
    assert len(server.asked) == 1


async def test_what_the_server_cannot_read_is_raised_and_not_repeated(connect, server):
    def refuse(_: object) -> v.Answer:
        raise ProtocolError("not a message of the protocol")

    server.says[v.Submit] = refuse
    server.says[v.Get] = lambda _: v.Document({"id": "42", "state": "queued"})
    async with connect() as client:
        with pytest.raises(ProtocolError, match="not a message"):
            await client.submit("m:f")
        assert await client.job("42").state() == "queued"
    assert [type(asked) for asked in server.asked] == [v.Submit, v.Get]


async def test_nobody_there_is_said_at_once(connect, server):
    server.close()
    with pytest.raises(Unreachable):
        async with connect():
            pass


@pytest.mark.parametrize("error", [NotAllowed("no"), Unauthorised("who?")])
async def test_a_refused_welcome_is_raised(connect, server, error):
    server.refuses = error
    with pytest.raises(type(error)):
        async with connect():
            pass


async def test_when_the_patience_ends_a_submit_is_unknown_and_says_how_to_repeat_it(connect, server):
    async with connect(patience_s=0.05) as client:
        server.close()
        with pytest.raises(Unknown) as caught:
            await client.submit("m:f", key="again")
    assert "--key again" in caught.value.hint


async def test_when_the_patience_ends_a_read_is_unreachable(connect, server):
    async with connect(patience_s=0.05) as client:
        server.close()
        with pytest.raises(Unreachable):
            await client.job("42").state()


async def test_another_store_makes_a_submit_unknown(connect, server):
    server.says[v.Submit] = lambda _: v.Submitted("42")
    async with connect() as client:
        await client.submit("m:f")
        server.cuts, server.lineage = 1, 8
        with pytest.raises(Unknown, match="another store"):
            await client.submit("m:f")


async def test_an_old_copy_of_the_store_is_refused(connect, server):
    server.says[v.Submit] = lambda _: v.Submitted("42")
    server.epoch = 5
    async with connect(patience_s=600) as client:
        await client.submit("m:f")
        server.cuts, server.epoch = 1, 4
        with pytest.raises(ConfigurationError, match="old copy of its store runs; it is not known whether"):
            await client.submit("m:f")


@pytest.mark.parametrize(
    "error", [Unauthorised("the token is wrong"), NotAllowed("not as a client"), VersionMismatch("none in common")]
)
async def test_who_is_let_in_no_more_is_told_at_once_and_asks_no_more(connect, server, error):
    """Not a minute later, and what may have been done is said to be so."""

    def cut(_: object) -> v.Answer:
        server.cuts, server.refuses = 1, error
        return v.Document({"id": "42", "state": "running"})

    server.says[v.Get] = server.says[v.Submit] = cut
    async with connect(patience_s=600) as client:
        await client.job("42").state()
        with pytest.raises(
            type(error), match=f"^{error.message}; it is not known whether the request was done"
        ) as told:
            await client.submit("m:f", key="mine")
        assert "--key mine" in told.value.hint
        with pytest.raises(type(error), match=f"^{error.message}$"):
            await client.job("42").state()
        assert len(server.hellos) == 3
        server.refuses, server.cuts = None, 0
        assert await client.job("42").state() == "running", "the next question begins anew"


async def test_a_server_that_cannot_be_found_for_a_while_is_looked_for(connect, server, environ, monkeypatch):
    """With TQ_URL the token is the connection file's, which is away while the server is."""
    file = Path(environ["HOME"], ".local/state/tq/connection.json")
    environ["TQ_URL"] = server.url
    looks = 0
    find = target.find

    def look(*arguments: Any) -> target.Target:
        nonlocal looks
        looks += 1
        if looks == 4:
            server.write_connection(file.parent)
        return find(*arguments)

    monkeypatch.setattr(target, "find", look)
    server.says[v.Get] = lambda _: v.Document({"id": "42", "state": "running"})
    async with connect(patience_s=600) as client:
        server.cuts = 1
        file.unlink()  # noqa: ASYNC240
        assert await client.job("42").state() == "running"
    assert looks == 4


async def test_behind_the_end_of_its_block_a_client_asks_nothing(connect, server):
    async with connect() as client:
        pass
    with pytest.raises(Unreachable, match="the client is closed"), trio.fail_after(10):
        await client.job("42").state()
    assert not server.asked


# ---------------------------------------------------------------- with trio alone


async def test_what_is_asked_when_the_block_ends_is_told_so(server, environ):
    server.is_mute = True
    async with trio.open_nursery() as nursery:

        async def ask(client: Client) -> None:
            with pytest.raises(Unreachable, match="the client is closed"):
                await client.job("42").state()

        async with tq.client.connect(environ=environ) as client:
            nursery.start_soon(ask, client)
            await trio.to_thread.run_sync(server.waits_for, v.Get)


async def test_more_waits_than_a_connection_may_have_take_turns(server, environ):
    server.says[v.Wait] = lambda _: v.Waited(True, ())
    server.says[v.Get] = lambda asked: v.Document({"id": asked.id, "state": "queued"})
    server.is_mute = True
    async with tq.client.connect(environ=environ) as client, trio.open_nursery() as nursery:
        most = limits.waits_max - 1  # one is for glances
        for number in range(1, most + 3):
            nursery.start_soon(client.job(str(number)).wait)
        await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.start_soon(client.job("1").state)
        await trio.to_thread.run_sync(server.waits_for, v.Get)
        assert sum(isinstance(asked, v.Wait) for asked in server.asked) == most
        nursery.cancel_scope.cancel()


async def test_many_ask_at_once_and_each_gets_its_answer(server, environ):
    server.says[v.GetResults] = lambda command: v.Results(
        (v.Result(command.id, "succeeded", 1, 0, "exit", plain.dumps(int(command.id), 100, "")),)
    )
    server.says[v.Wait] = lambda command: v.Waited(True, ())
    found: dict[int, Any] = {}

    async def ask(client: Client, number: int) -> None:
        found[number] = await client.job(str(number)).result()

    async with tq.client.connect(environ=environ) as client, trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(ask, client, number)
    assert found == {number: number for number in range(50)}
    assert len(server.hellos) == 1


async def test_one_that_gives_up_waiting_disturbs_nobody(server, environ):
    server.says[v.Wait] = lambda _: [outcome("running", done=False)] * 2
    server.is_mute = True
    async with tq.client.connect(environ=environ) as client:
        with trio.move_on_after(0) as scope:
            await client.job("42").wait()
        assert scope.cancelled_caught
        server.is_mute = False
        server.says[v.Get] = lambda _: v.Document({"id": "42", "state": "running"})
        assert await client.job("42").state() == "running"


@pytest.mark.parametrize("error", [KeyError, SystemExit, KeyboardInterrupt])
async def test_what_the_block_raises_comes_out_as_it_is(server, environ, error):
    with pytest.raises(error, match="mine"):
        async with tq.client.connect(environ=environ):
            raise error("mine")


def test_under_another_event_loop_it_is_said_what_to_do(server, environ):
    async def ask() -> None:
        async with tq.client.connect(environ=environ):
            pass

    with pytest.raises(ConfigurationError, match="needs trio") as caught:
        asyncio.run(ask())
    assert "connect_blocking" in caught.value.hint


async def test_a_silent_server_is_left(server, environ):
    server.beat_ms = 50
    server.is_mute = True
    async with tq.client.connect(environ=environ) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.job("42").state)
        while len(server.asked) < 2:  # noqa: ASYNC110 - another thread's
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert server.asked[:2] == [v.Get("42")] * 2
    assert len(server.hellos) >= 2


async def test_a_refusal_spares_what_the_server_has_heard(server, environ):
    def refuse(_: object) -> v.Answer:
        raise ProtocolError("not a message of the protocol")

    def first(_: object) -> v.Answer:
        server.is_mute = True
        return outcome("running", done=False)

    server.says[v.Wait] = first
    server.says[v.Submit] = refuse
    async with tq.client.connect(environ=environ) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.job("42").wait)
        while not any(question.is_heard for question in client._asker._line._questions.values()):  # noqa: ASYNC110
            await trio.sleep(0.01)
        server.is_mute = False
        server.says[v.Wait] = lambda _: outcome()
        with pytest.raises(ProtocolError):
            await client.submit("m:f")
    assert [type(asked) for asked in server.asked] == [v.Wait, v.Submit, v.Wait]


# ---------------------------------------------------------------- without trio alone


def test_without_a_block_a_client_lives_until_it_is_closed(server, environ):
    server.says[v.Get] = lambda _: v.Document({"id": "42", "state": "running"})
    client = tq.client.connect_blocking(environ=environ)
    job = client.job("42")
    assert job.state() == "running"
    client.close()
    client.close()
    with pytest.raises(Unreachable, match="the client is closed"):
        job.state()
    with client, pytest.raises(Unreachable, match="the client is closed"):
        job.state()
    assert len(server.hellos) == 1


def test_help_and_tab_know_every_name_before_it_is_loaded():
    program = "import sys, tq.client; print(*set(tq.client.__all__) - set(dir(tq.client)), 'trio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("error", [TimeoutError, OSError, ConnectionResetError])
def test_what_a_signal_handler_raises_ends_the_wait(server, environ, error):
    def ring(*_: object) -> None:
        raise error("mine")

    gate = threading.Event()
    server.says[v.Get] = lambda _: (gate.wait(5), v.Document({"id": "42", "state": "running"}))[1]
    before = signal.signal(signal.SIGALRM, ring)
    try:
        with tq.client.connect_blocking(environ=environ) as client:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(error, match="mine"):
                client.job("42").state()
            gate.set()
            assert client.job("42").state() == "running"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_behind_a_message_that_was_cut_off_comes_a_new_connection(server, environ, monkeypatch):
    server.says[v.Get] = lambda _: v.Document({"id": "42", "state": "running"})
    send_all = ssl.SSLSocket.sendall

    def interrupted(stream: ssl.SSLSocket, data: bytes) -> None:
        if stream.server_side:
            send_all(stream, data)
            return
        monkeypatch.undo()
        send_all(stream, data[:7])
        raise KeyboardInterrupt

    with tq.client.connect_blocking(environ=environ) as client:
        monkeypatch.setattr(ssl.SSLSocket, "sendall", interrupted)
        with pytest.raises(KeyboardInterrupt):
            client.job("42").state()
        assert client.job("42").state() == "running"
    assert (len(server.hellos), len(server.asked)) == (2, 1)


def test_importing_the_client_costs_nothing():
    code = "import sys; before = set(sys.modules); import tq.client; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"trio", "ssl", "socket", "msgspec"} & set(done.stdout.split())


def test_a_name_that_is_none_is_no_attribute():
    with pytest.raises(AttributeError, match="nothing"):
        tq.client.nothing  # noqa: B018
