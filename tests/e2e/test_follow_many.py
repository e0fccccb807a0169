"""`tq logs -f` of an array with more running tasks than a connection has streams, while its server is killed."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.server.process import command, running_server, running_worker, wait_for, wait_until
from tq import limits
from tq.core.vocabulary import Status

_SIZE = 30
_SLOTS = limits.streams_max + 4


def test_an_array_is_followed_whole_over_a_restart_of_its_server(tmp_path: Path) -> None:
    flag, out, err = tmp_path / "flag", tmp_path / "out", tmp_path / "err"
    script = (
        f"echo begun $TQ_ATTEMPT; while ! test -e {flag}; do sleep 0.2; done; echo ended $TQ_ATTEMPT;"
        " test $TQ_MEMBER != 7 || test $TQ_ATTEMPT = 2"
    )
    with running_server(tmp_path) as server, running_worker(server, slots=_SLOTS), server.client() as client:
        job = client.ask(command("sh", "-c", script, size=_SIZE, is_array=True, retries=1, backoff_ms=(10, 10))).id  # type: ignore[union-attr]
        with out.open("wb") as stdout, err.open("wb") as stderr:
            tq = [sys.executable, "-P", "-m", "tq"]
            follower = subprocess.Popen(
                [*tq, "logs", "-f", job], env=server.environ, cwd=tmp_path, stdout=stdout, stderr=stderr
            )
        try:
            wait_until(lambda: out.read_bytes().count(b"begun") == limits.streams_max)
            server.kill()
            server.start()
            wait_until(lambda: client.ask(Status()).value["workers"] == 1)  # type: ignore[union-attr]
            flag.touch()
            wait_for(client, job)
            assert follower.wait(30) == 0
        finally:
            follower.kill()
            follower.wait()
    tasks = [(value, attempt) for value in range(1, _SIZE + 1) for attempt in (1, 2) if attempt == 1 or value == 7]
    assert Counter(out.read_text().splitlines()) == {
        f"{job}.{value} out| {word} {attempt}": 1 for value, attempt in tasks for word in ("begun", "ended")
    }
    said = [
        line for line in err.read_text().splitlines() if "no worker is connected" not in line
    ]  # as was true a moment
    assert said == [f"tq: {job}.7: attempt 2 begins"]
