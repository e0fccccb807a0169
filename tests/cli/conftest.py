import os
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cli.fake import FakeServer
from tests.support.house import House
from tq.cli import app
from tq.core import vocabulary as v
from tq.server.operation.identity import Identity, open_identity


class Ran(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture(scope="session")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return open_identity(tmp_path_factory.mktemp("identity") / "identity", datetime.now(UTC))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home of this test's own, without a server."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server(identity: Identity, place: Path) -> Iterator[FakeServer]:
    """A server that the user's connection file names."""
    fake = FakeServer(identity)
    fake.write_connection(place / ".local/state/tq")
    yield fake
    fake.close()


@pytest.fixture
def run(place: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Run `tq` with these words in this process, and return status, stdout and stderr."""

    def run_tq(*words: str) -> Ran:
        status = app.run(words)
        sys.stdout.flush()
        sys.stderr.flush()
        out, err = capfdbinary.readouterr()
        return Ran(status, out.decode(), err.decode())

    return run_tq


@pytest.fixture
def give_input(tmp_path: Path) -> Iterator[Callable[[bytes], None]]:
    """Make these bytes the standard input of what this process runs."""
    kept = os.dup(0)

    def give(data: bytes) -> None:
        path = tmp_path / "input"
        path.write_bytes(data)
        with path.open("rb") as file:
            os.dup2(file.fileno(), 0)

    yield give
    os.dup2(kept, 0)
    os.close(kept)


@pytest.fixture
def house(server: FakeServer) -> House:
    """The engine that answers for the server, with one worker."""
    house = House()
    house.join(slots=4)
    for kind in (v.AddEntries, v.Submit, v.Upload, v.GetRequest, v.List, v.Tick):
        server.says[kind] = house.do  # type: ignore[assignment]
    return house
