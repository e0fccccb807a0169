"""What both clients do when what answers makes no sense: they try again while it may pass, and say what is known."""

import json
import socket
from pathlib import Path

import pytest
import trio

from tq.client.drivers.reconnect import given_up, is_elsewhere
from tq.core import vocabulary as v
from tq.errors import ProtocolError, Unknown, Unreachable
from tq.wire import messages as m
from tq.wire.connection import Connection

BABBLE = {
    "no message": b"\0\0\0\5hello",
    "half a frame": b"\0\0\0\5h",
    "no frame": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a beat": Connection().send([m.Beat()]),
}


@pytest.mark.parametrize("babble", [pytest.param(words, id=name) for name, words in BABBLE.items()])
async def test_a_server_that_comes_back_talking_nonsense_is_asked_until_it_makes_sense(connect, server, babble):
    server.says[v.Submit] = lambda _: v.Submitted("42")
    async with connect(patience_s=600) as client:
        server.cuts, server.babbles = 1, [babble] * 3
        assert (await client.submit("m:f")).id == "42"
    assert len(server.hellos) == 5


@pytest.mark.parametrize("babble", [pytest.param(words, id=name) for name, words in BABBLE.items() if name != "a beat"])
async def test_an_answer_that_nobody_can_read_is_asked_for_again(connect, server, babble):
    says = iter([[babble], [babble], [v.Submitted("42")]])
    server.says[v.Submit] = lambda _: next(says)
    async with connect(patience_s=600) as client:
        assert (await client.submit("m:f")).id == "42"
    first, *others = server.asked
    assert others == [first, first]


@pytest.mark.parametrize("command", [v.DeadLetters(v.Where()), v.Queues(), v.Backup(), v.Logs("42")])
def test_of_a_question_that_changes_nothing_nothing_is_left_unknown(command: v.ClientCommand) -> None:
    assert isinstance(given_up(command, ConnectionError()), Unreachable)


def test_a_list_that_names_no_ids_is_asked_of_another_store_too() -> None:
    assert not is_elsewhere(v.DeadLetters(v.Where()))


async def test_what_speaks_something_else_at_first_is_said_at_once(connect, server):
    server.babbles = [BABBLE["no message"]]
    with pytest.raises(ProtocolError):
        async with connect(patience_s=600):
            pass
    assert len(server.hellos) == 1


async def test_nonsense_without_an_end_ends_with_the_patience_and_says_what_is_known(connect, server):
    server.says[v.Submit] = server.says[v.Get] = lambda _: [BABBLE["no message"]]
    async with connect(patience_s=0.05) as client:
        with pytest.raises(Unknown, match=r"not known whether the request was done: .*CBOR"):
            await client.submit("m:f")
        with pytest.raises(Unreachable, match=r"could not be made again: .*CBOR"):
            await client.job("42").state()
        server.says[v.Get] = lambda _: v.Document({"id": "42", "state": "running"})
        assert await client.job("42").state() == "running", "the next question begins anew"


async def test_another_program_at_the_address_is_waited_out(connect, server, environ):
    """As when the port was taken while the server was away."""
    where = Path(environ["HOME"], ".local/state/tq")
    server.says[v.Get] = lambda _: v.Document({"id": "42", "state": "running"})
    with socket.create_server(("127.0.0.1", 0)) as other:

        def speak_http() -> None:
            for _ in range(3):
                stream, _ = other.accept()
                with stream:
                    stream.sendall(BABBLE["no frame"])
            server.write_connection(where)

        async with connect(patience_s=600) as client, trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, speak_http)
            known = json.loads((where / "connection.json").read_bytes())
            known["url"] = f"tq://127.0.0.1:{other.getsockname()[1]}"
            (where / "connection.json").write_text(json.dumps(known))
            server.cuts = 1
            assert await client.job("42").state() == "running"
    assert len(server.hellos) == 2
