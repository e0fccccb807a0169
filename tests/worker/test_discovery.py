"""A server that moves: a real worker looks for it before each dial, and keeps what it knew while nothing is found."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.fake_server import FakeServer, WorkerProcess, assign, open_fake_server, ref, running_worker
from tq.wire import messages as m


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[FakeServer]:
    async with open_fake_server(tmp_path) as server:
        yield server


def say_where(worker: WorkerProcess, server: FakeServer, **other: str) -> None:
    """Let the worker find this server, from its next look on."""
    fresh = worker.where.with_suffix(".new")
    fresh.write_text(json.dumps(server.found() | other))
    fresh.replace(worker.where)


async def test_a_server_that_comes_back_elsewhere_is_found_with_its_new_token_and_ca(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    async with open_fake_server(tmp_path / "new") as new, open_fake_server(tmp_path) as old:
        with running_worker(old, tmp_path) as worker:
            peer = await old.reconciled()
            peer.send(assign(1, "sleep", "60"))
            await peer.receive(m.StartedAttempts)
            say_where(worker, new, token="tqw_new")
            peer.cut()
            again = await new.peer()
            assert (again.hello.token, again.hello.lineage) == ("tqw_new", old.lineage)
            listed = await again.receive(m.Reconcile)
            assert [one.attempt for one in listed.held] == [ref(1)]


@pytest.mark.parametrize(
    "broken", ["", "{", '{"address": ["127.0.0.1", 1], "token": "", "ca_pem": "x"}', "away"], ids=str
)
async def test_while_nothing_sensible_is_found_the_server_is_where_it_was(
    server: FakeServer, tmp_path: Path, broken: str
) -> None:
    with running_worker(server, tmp_path) as worker:
        peer = await server.reconciled()
        worker.where.unlink() if broken == "away" else worker.where.write_text(broken)
        peer.cut()
        await server.reconciled()


async def test_a_ca_that_is_none_is_no_server_that_has_moved(server: FakeServer, tmp_path: Path) -> None:
    with running_worker(server, tmp_path) as worker:
        peer = await server.reconciled()
        say_where(worker, server, ca_pem="-----BEGIN nothing")
        peer.cut()
        await server.reconciled()


async def test_a_refusal_is_not_for_good_when_the_token_was_changed_meanwhile(
    server: FakeServer, tmp_path: Path
) -> None:
    """The server that refuses has made its new token already: it is found before the worker gives up."""
    with running_worker(server, tmp_path) as worker:
        peer = await server.reconciled()
        server.refusal = m.Refused("unauthorised", "no")
        server.before_refusal = lambda: say_where(worker, server, token="tqw_new")
        peer.cut()
        await worker.logged("server_moved")
        server.refusal = None
        assert (await server.peer()).hello.token == "tqw_new"
