"""A server whose store lost a log refuses to start, is salvaged with the real program, and serves on."""

import json
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
