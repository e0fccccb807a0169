"""A server whose store lost a log or has a damaged table says so, is salvaged with the real program, and serves on."""

import json
import os
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.town import town

pytestmark = pytest.mark.slow


def test_a_store_without_its_log_is_salvaged_and_serves_on(tmp_path: Path) -> None:
    with town(tmp_path, "--heartbeat", "200ms") as here:
        worker = here.worker(slots=2)
        done = here.submit("echo", "printed")
        assert here.wait(done) == 0
        assert here.server.stop() == 0  # all of it is in tables now
        here.server.start()
        held = here.submit("true", options=["--hold"])
        running = here.submit("sh", "-c", "while ! test -e flag; do sleep 0.05; done")
        here.until_started(running)
        old = here.running(running)
        here.server.kill()
        logs = list((here.server.data / "db").glob("*.log"))
        for log in logs:
            log.unlink()

        refused = here.server.run()
        assert refused.returncode == 78
        assert "tq store salvage" in refused.stderr
        salvaged = here.tq("store", "salvage")
        assert salvaged.status == 0, salvaged
        assert "are lost" in salvaged.out
        checked = here.tq("store", "check", "-o", "json")
        assert (checked.status, json.loads(checked.out)["ok"]) == (0, True)

        here.server.start()
        worker.says("other_lineage")
        processes.until(lambda: not any(map(processes.is_alive, old)), "what the lost commits had started is stopped")
        assert here.tq("logs", done).out == "printed\n"
        assert here.tq("show", held).status == 1  # its commit was in the log
        again = here.submit("true")
        assert here.wait(again) == 0
        assert here.server.stop() == 0


def test_a_served_store_that_turns_out_to_be_damaged_is_said_and_salvaged(tmp_path: Path) -> None:
    with town(tmp_path, "--heartbeat", "200ms") as here:
        here.worker(slots=2)
        done = here.submit("echo", "printed")
        assert here.wait(done) == 0
        large = here.tq("submit", "--hold", "--stdin", "--", "cat", stdin=os.urandom(600_000)).out.strip()
        other = here.submit("echo", "later", options=["--hold"])
        assert here.server.stop() == 0
        table = max((here.server.data / "db").glob("*.sst"), key=lambda path: path.stat().st_size)
        raw = bytearray(table.read_bytes())
        raw[len(raw) // 2] ^= 1
        table.write_bytes(raw)

        here.server.start()  # nothing of a start reads that
        assert here.tq("release", large).status == 0
        processes.until(lambda: here.show(large)["state"] == "held", "what cannot be read is held")
        assert "its input cannot be read" in here.show(large)["reason"]
        assert "are damaged" in here.server.log()
        assert "tq store salvage" in here.server.log()
        assert here.wait(here.submit("true")) == 0  # all else goes on
        assert "fail  damage" in here.tq("doctor").out
        assert here.server.stop() in (0, 78)  # a compaction may come to it at the end
        compacted = here.tq("store", "compact")
        assert compacted.status == 78
        assert "each start would end so" in compacted.err
        assert "tq store salvage" in compacted.err
        assert here.tq("store", "check").status == 1
        salvaged = here.tq("store", "salvage")
        assert salvaged.status == 0
        assert f"job {large} is held: a part of its input is lost" in salvaged.out

        here.server.start()
        assert here.tq("release", other).status == 0
        assert here.wait(other) == 0
        assert here.tq("logs", done).out == "printed\n"
        assert here.show(large)["state"] == "held"
        assert here.server.stop() == 0
