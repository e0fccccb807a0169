"""Who gets in: hello, tokens, versions; and what is understood before."""

from typing import Any

import pytest
import trio

from tests.server.hall import WALL_MS, hello, open_hall, until
from tq import __version__
from tq.core.vocabulary import RevokeToken, Status
from tq.net.token import make_token
from tq.wire import messages as m


async def refused(*first: m.Message, role: str = "", **fields: Any) -> m.Refused:
    """Return why a connection is refused whose first messages are these (or a hello with a token of this role)."""
    async with open_hall() as hall:
        if role:
            token = await hall.token(role)
            first = (hello(token.text, **fields),)
        peer = await hall.connect(*first)
        assert isinstance(peer.welcome, m.Refused), peer.welcome
        await peer.ended()
        assert hall.registry.peers == ()
        return peer.welcome


async def test_a_good_token_is_welcomed_with_what_a_peer_must_know() -> None:
    async with open_hall() as hall:
        client = await hall.client("submit")

        assert client.welcome == m.Welcome(1, __version__, 7, 1, client.welcome.session, 5_000, "submit")
        assert len(hall.registry.peers) == 1
        client.send(m.Goodbye("done"))
        await client.ended()
        await until(lambda: not hall.registry.peers)


async def test_the_ca_is_shown_once_to_anybody() -> None:
    async with open_hall() as hall:
        peer = await hall.connect(m.GetCA())
        assert peer.welcome == m.CA(b"the CA")
        peer.send(m.GetCA())
        assert (await peer.receive(m.Refused)).code == "protocol_error"


@pytest.mark.parametrize("text", ["", "nonsense", "tqa_aaaaaaaaaa_x", make_token("admin", bytes(39)).text])
async def test_a_token_that_is_missing_malformed_or_unknown_is_refused(text: str) -> None:
    answer = await refused(hello(text))

    assert answer.code == "unauthorised"
    assert not text or text not in answer.message + answer.hint


async def test_a_wrong_secret_under_a_known_id_is_refused() -> None:
    async with open_hall() as hall:
        good = await hall.token("admin")
        other = make_token("admin", bytes([1]) * 7 + bytes(32))
        assert other.id == good.id
        peer = await hall.connect(hello(other.text))

        assert isinstance(peer.welcome, m.Refused)
        assert peer.welcome.code == "unauthorised"


async def test_only_a_wrong_token_counts_against_its_address() -> None:
    async with open_hall() as hall:
        good = await hall.token("worker")
        await hall.connect(hello(good.text, "worker", worker=7))
        await hall.connect(hello(good.text))  # not allowed, but known
        assert hall.struck == []
        await hall.connect(hello(make_token("worker", bytes(39)).text))
        await hall.connect(hello(""))
        await until(lambda: len(hall.struck) == 2)


async def test_a_worker_s_id_belongs_to_the_token_that_brought_it() -> None:
    async with open_hall() as hall:
        mine, other = await hall.token("worker"), await hall.token("worker")
        first = await hall.connect(hello(mine.text, "worker", worker=77))
        assert isinstance(first.welcome, m.Welcome)
        thief = await hall.connect(hello(other.text, "worker", worker=77))
        assert isinstance(thief.welcome, m.Refused)
        assert (thief.welcome.code, "another token" in thief.welcome.message) == ("not_done", True)
        assert not first.has_ended.is_set()
        again = await hall.connect(hello(mine.text, "worker", worker=77))
        assert isinstance(again.welcome, m.Welcome)


async def test_a_revoked_token_keeps_no_id() -> None:
    async with open_hall() as hall:
        old, new = await hall.token("worker"), await hall.token("worker")
        await hall.connect(hello(old.text, "worker", worker=77))
        admin = await hall.client("admin")
        await admin.ask(RevokeToken(old.id))
        assert isinstance((await hall.connect(hello(new.text, "worker", worker=77))).welcome, m.Welcome)


async def test_an_expired_token_is_refused_with_the_same_words_as_a_wrong_one(autojump_clock: Any) -> None:
    async with open_hall() as hall:
        token = await hall.token("submit", expires_ms=WALL_MS + round(trio.current_time() * 1_000) + 10_000)
        await hall.client(token=token)
        await trio.sleep(11)
        expired = await hall.connect(hello(token.text))
        wrong = await hall.connect(hello(make_token("submit", bytes(39)).text))

        assert isinstance(expired.welcome, m.Refused)
        assert expired.welcome == wrong.welcome


async def test_a_revoked_token_is_refused_and_its_connections_are_cut() -> None:
    async with open_hall() as hall:
        token = await hall.token("submit")
        client = await hall.client(token=token)
        admin = await hall.client("admin")
        await admin.ask(RevokeToken(token.id))
        assert (await client.receive(m.Goodbye)).reason == "its token was revoked"
        again = await hall.connect(hello(token.text))

        assert isinstance(again.welcome, m.Refused)
        await admin.ask(Status())  # others are not touched


async def test_one_token_does_not_get_all_connections_so_that_it_can_be_revoked() -> None:
    async with open_hall() as hall:
        hall.share_max = 2
        stolen = await hall.token("read")
        clients = [await hall.client(token=stolen) for _ in range(2)]
        third = await hall.connect(hello(stolen.text))
        assert isinstance(third.welcome, m.Refused)
        assert third.welcome.code == "not_done"
        assert hall.struck == []
        clients[0].send(m.Goodbye("done"))
        await clients[0].ended()
        await until(lambda: hall.registry.count(stolen.id) == 1)
        assert isinstance((await hall.connect(hello(stolen.text))).welcome, m.Welcome)
        admin = await hall.client("admin")
        await admin.ask(RevokeToken(stolen.id))

        assert (await clients[1].receive(m.Goodbye)).reason == "its token was revoked"


async def test_the_stored_role_counts_and_not_the_one_in_the_text() -> None:
    async with open_hall() as hall:
        token = await hall.token("admin", stored_role="read")
        client = await hall.client(token=token)

        assert client.welcome.role == "read"


@pytest.mark.parametrize("role,peer", [("worker", "client"), ("read", "worker"), ("submit", "worker")])
async def test_a_token_of_the_wrong_kind_is_refused(role: str, peer: str) -> None:
    fields = {"role": role}
    async with open_hall() as hall:
        token = await hall.token(fields["role"])
        refusal = (await hall.connect(hello(token.text, peer, worker=7 if peer == "worker" else 0))).welcome

        assert isinstance(refusal, m.Refused)
        assert refusal.code == "not_allowed"


async def test_another_version_is_refused_and_both_are_named() -> None:
    answer = await refused(role="admin", versions=(8, 9))

    assert answer.code == "version_mismatch"
    assert f"tq {__version__}, speaks protocol" in answer.message
    assert "'test', 8 to 9" in answer.message


async def test_a_server_that_is_an_older_copy_says_so_when_somebody_has_seen_a_later_start(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with open_hall() as hall:
        text = (await hall.token("admin")).text
        for lineage, epoch in ((0, 0), (7, 1), (8, 9), (7, 9)):
            await hall.connect(hello(text, lineage=lineage, epoch=epoch))
    said = [line for line in capsys.readouterr().err.splitlines() if "older_copy" in line]
    assert ["epoch=1 seen=9" in line for line in said] == [True]


async def test_an_unknown_required_feature_is_refused() -> None:
    assert (await refused(role="admin", required=("x",))).code == "version_mismatch"


@pytest.mark.parametrize(
    "message",
    [m.Ask(1, Status()), m.Beat(), m.Welcome(1, "", 0, 0, 0, 0, ""), hello("x", "king"), hello("x", worker=7)],
)
async def test_anything_else_before_the_hello_is_a_breach(message: m.Message) -> None:
    assert (await refused(message)).code == "protocol_error"


async def test_a_frame_over_four_kib_before_the_hello_ends_the_connection() -> None:
    async with open_hall() as hall:
        peer = await hall.connect(hello("x" * 5_000))
        await peer.ended()

        assert peer.welcome is None or isinstance(peer.welcome, m.Refused)
        await until(lambda: len(hall.complaints) == 1)


async def test_after_the_hello_frames_may_be_large() -> None:
    async with open_hall() as hall:
        client = await hall.client("admin")
        client.send(m.Goodbye("x" * 100_000))
        await client.ended()

        assert hall.complaints == []


async def test_a_stopping_server_refuses_newcomers() -> None:
    async with open_hall() as hall:
        token = await hall.token("admin")
        hall.gate.is_stopping = True
        peer = await hall.connect(hello(token.text))

        assert isinstance(peer.welcome, m.Refused)
        assert peer.welcome.code == "stopping"
