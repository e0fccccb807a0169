from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

import tq.client
from tests.cli.fake import FakeServer
from tq.server.operation.identity import Identity, open_identity


@pytest.fixture(scope="session")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return open_identity(tmp_path_factory.mktemp("identity") / "identity", datetime.now(UTC))


@pytest.fixture
def server(identity: Identity, tmp_path: Path) -> Iterator[FakeServer]:
    """A server that the connection file of `environ` names."""
    fake = FakeServer(identity)
    fake.write_connection(tmp_path / ".local/state/tq")
    yield fake
    fake.close()


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path)}


class Threaded:
    """The blocking client, each call in a thread: so the tests are written once, and can do other things meanwhile."""

    def __init__(self, of: Any) -> None:
        self._of = of

    async def submit(self, *positional: Any, **named: Any) -> "ThreadedJob":
        return ThreadedJob(await trio.to_thread.run_sync(lambda: self._of.submit(*positional, **named)))

    def job(self, name: str) -> "ThreadedJob":
        return ThreadedJob(self._of.job(name))

    async def as_completed(self, jobs: list["ThreadedJob"], timeout_s: float | None = None) -> AsyncIterator[Any]:
        ended = self._of.as_completed([job._of for job in jobs], timeout_s)
        while (job := await trio.to_thread.run_sync(next, ended, None)) is not None:
            yield job

    async def wait_any(self, jobs: list["ThreadedJob"], timeout_s: float | None = None) -> Any:
        return await trio.to_thread.run_sync(self._of.wait_any, [job._of for job in jobs], timeout_s)

    async def status(self) -> Any:
        return await trio.to_thread.run_sync(self._of.status)


class ThreadedJob:
    """As `Threaded`."""

    def __init__(self, of: Any) -> None:
        self.id, self.existed, self.warning = of.id, of.existed, of.warning
        self._of = of

    async def result(self, timeout_s: float | None = None) -> Any:
        return await trio.to_thread.run_sync(lambda: self._of.result(timeout_s=timeout_s))

    async def wait(self, timeout_s: float | None = None) -> None:
        await trio.to_thread.run_sync(lambda: self._of.wait(timeout_s=timeout_s))

    async def as_completed(self, timeout_s: float | None = None) -> AsyncIterator[Any]:
        ended = self._of.as_completed(timeout_s)
        while (result := await trio.to_thread.run_sync(next, ended, None)) is not None:
            yield result

    async def state(self) -> Any:
        return await trio.to_thread.run_sync(self._of.state)

    async def cancel(self) -> Any:
        return await trio.to_thread.run_sync(self._of.cancel)

    async def logs(self, **how: Any) -> AsyncIterator[Any]:
        for piece in await trio.to_thread.run_sync(lambda: list(self._of.logs(**how))):
            yield piece


@pytest.fixture(params=["trio", "blocking"])
def connect(request: pytest.FixtureRequest, server: FakeServer, environ: dict[str, str]) -> Callable[..., Any]:
    """Both clients, as one with trio's shape."""
    if request.param == "trio":
        return lambda **options: tq.client.connect(environ=environ, **options)

    @asynccontextmanager
    async def blocking(**options: Any) -> AsyncIterator[Any]:
        client = await trio.to_thread.run_sync(partial(tq.client.connect_blocking, environ=environ, **options))
        try:
            yield Threaded(client)
        finally:
            await trio.to_thread.run_sync(client.close)

    return blocking
