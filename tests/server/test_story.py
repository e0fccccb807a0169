"""What a server says of itself is true whatever somebody sets its machine's clock to."""

import datetime as dt
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tq.server import serve
from tq.server.commit import clock
from tq.server.operation.identity import open_identity
from tq.server.settings import Settings
from tq.store.directory import hold_directory
from tq.store.disk import open_store

HOUR_NS = 3_600 * 10**9


async def test_the_time_that_it_is_up_is_no_difference_of_wall_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wall_ns, boot_ns = time.time_ns(), 77 * HOUR_NS
    monkeypatch.setattr(
        clock,
        "time",
        SimpleNamespace(
            time_ns=lambda: wall_ns, clock_gettime_ns=lambda _: boot_ns, CLOCK_BOOTTIME=time.CLOCK_BOOTTIME
        ),
    )
    settings = Settings(tmp_path / "data", tmp_path / "state", port=0)
    with hold_directory(settings.data) as lock:
        identity = open_identity(settings.data / "identity", dt.datetime.now(dt.UTC))
        store = open_store(lock)
        try:
            async with serve.open_server(settings, store, identity) as server:
                started_ms = wall_ns // 10**6
                assert server.story()["uptime_s"] == 0
                for jump_ns in (-HOUR_NS, 3 * HOUR_NS):
                    wall_ns += jump_ns
                    boot_ns += 90 * 10**9
                story = server.story()
                assert (story["uptime_s"], story["started_ms"]) == (180, started_ms)
                assert story["now_ms"] == wall_ns // 10**6
        finally:
            store.close()
