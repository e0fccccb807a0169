"""A real worker with a real launcher against a server played by the test, over TLS on loopback."""

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from tests.support.fake_server import FakeServer, assign, open_fake_server, ref, running_worker
from tq.core.task import Cause, Phase
from tq.core.vocabulary import End, Held
from tq.wire import messages as m
from tq.wire.held import tally


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[FakeServer]:
    async with open_fake_server(tmp_path) as server:
        yield server


async def test_it_runs_what_it_is_assigned_and_reports_it(server: FakeServer, tmp_path: Path) -> None:
    with running_worker(server, tmp_path):
        peer = await server.reconciled()
        peer.send(assign(1, "sh", "-c", "echo out; exit 3"))
        assert await peer.receive(m.Assigned) == m.Assigned(1)
        output = await peer.receive(m.Output)
        (end,) = (await peer.receive(m.Ended)).ends
        assert (end.attempt, end.cause, end.code) == (ref(1), Cause.EXIT, 3)
        assert (output.attempt, output.stream, output.offset, output.data) == (ref(1), 1, 0, b"out\n")
