"""`tq token`: what is asked of the server, and what is said."""

import time

import pytest

from tests.cli.conftest import Run
from tests.cli.fake import FakeServer
from tq.core import vocabulary as v
from tq.errors import TaskNotFound


def test_a_new_token_stands_alone_on_stdout_and_is_not_sent(run: Run, server: FakeServer) -> None:
    server.says[v.CreateToken] = lambda _: v.Done("x")
    ran = run("token", "create", "--role", "worker", "--name", "rack", "--expires", "30d")
    text = ran.out.removesuffix("\n")
    asked = server.asked[0]
    assert text.startswith(f"tqw_{asked.id}_")
    assert (asked.role, asked.name, len(asked.digest)) == ("worker", "rack", 32)
    assert asked.expires_ms > 0
    assert text not in ran.err


@pytest.mark.parametrize(
    "words",
    [["--role", "root"], ["--role", "read", "--expires", "0"], [], ["--role", "read", "--name", "n" * 129],
     ["--role", "read", "--name", "a b"]],
)  # fmt: skip
def test_a_token_that_makes_no_sense_is_refused(run: Run, server: FakeServer, words: list[str]) -> None:
    assert run("token", "create", *words).status == 2
    assert server.asked == []


def test_tokens_are_listed_and_revoked(run: Run, server: FakeServer) -> None:
    token = {"id": "abc", "role": "read", "name": "", "created_ms": 1_000, "expires_ms": 0}
    server.says[v.Tokens] = lambda _: v.Page((token,))
    server.says[v.RevokeToken] = lambda _: v.Done("abc")
    assert run("token", "ls").out == (
        "ID   ROLE  NAME  CREATED                   EXPIRES\nabc  read  -     1970-01-01T00:00:01.000Z  never\n"
    )
    soon, past = token | {"expires_ms": round(time.time() * 1_000) + 60_000}, token | {"expires_ms": 2_000}
    server.says[v.Tokens] = lambda _: v.Page((soon, past))
    waits, is_over = run("token", "ls").out.splitlines()[1:]
    assert ("expired" in waits, is_over.split()[4:]) == (False, ["expired", "1970-01-01T00:00:02.000Z"])
    assert run("token", "revoke", "abc").status == 0
    assert server.asked[-1] == v.RevokeToken("abc")


def test_of_several_tokens_the_known_are_revoked_and_the_others_named(run: Run, server: FakeServer) -> None:
    def answer(asked: v.RevokeToken) -> v.Done:
        if asked.id != "good":
            raise TaskNotFound(f"there is no token {asked.id!r}", hint="tq token ls")
        return v.Done(asked.id)

    server.says[v.RevokeToken] = answer
    ran = run("token", "revoke", "bad", "good", "worse")
    assert ran == (1, "", "tq: token good is revoked\ntq: not found: bad, worse\nhint: tq token ls\n")


def test_tokens_on_every_page_are_listed(run: Run, server: FakeServer) -> None:
    server.says[v.Tokens] = lambda asked: v.Page(({"id": "b"},)) if asked.page else v.Page(({"id": "a"},), "a")
    assert run("token", "ls", "-q").out == "a\nb\n"
    assert len(run("token", "ls").out.splitlines()) == 3


def test_who_revokes_its_own_token_does_that_last_and_is_told_the_way_back(
    run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.says[v.RevokeToken] = lambda command: v.Done(command.id)
    server.token = "tqa_own_secret"
    monkeypatch.setenv("TQ_URL", server.url)
    monkeypatch.setenv("TQ_TOKEN", server.token)
    monkeypatch.setenv("TQ_CA", server.identity.ca_sha256)
    assert run("token", "revoke", "other").err == "tq: token other is revoked\n"
    ran = run("token", "revoke", "own", "other")
    assert [one.id for one in server.asked[-2:]] == ["other", "own"]
    assert "that was the token of this program" in ran.err
    assert "hint: a restart of the server makes one" in ran.err
