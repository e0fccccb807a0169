from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.cli.fake import FakeServer
from tq.server.identity import Identity, open_identity


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
