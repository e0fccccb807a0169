"""A server that is played."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.fake_server import FakeServer, open_fake_server


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[FakeServer]:
    async with open_fake_server(tmp_path) as server:
        yield server
