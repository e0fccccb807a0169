"""What tq costs while nothing is to be done: processor and memory of a server and a worker, and of many workers."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from measures import Row
from rig import Rig

CROWD: Final = Path(__file__).with_name("crowd.py")
SETTLE_S: Final = 6.0  # more than a beat
WATCH_S: Final = 15.0


def busy_ms(rig: Rig, *names: str) -> list[float]:
    """Return how many ms of a processor each of these processes takes in a second."""
    began_s, before_s = time.perf_counter(), [rig.cpu_s(name) for name in names]
    time.sleep(WATCH_S)
    took_s = time.perf_counter() - began_s
    return [(rig.cpu_s(name) - before) * 1_000 / took_s for name, before in zip(names, before_s, strict=True)]


def idle(rig: Rig, _: int) -> Iterator[Row]:
    """A server and a worker that have worked a little, and wait."""
    with rig.client() as client:
        rig.wait(client, rig.submit(client, 1_000))
    time.sleep(SETTLE_S)
    server_ms, worker_ms = busy_ms(rig, "server", "worker")
    shown = f"{server_ms + worker_ms:.1f} ms a second (server {server_ms:.1f}, worker {worker_ms:.1f})"
    yield Row("idle server and worker: processor", shown, wanted="< 3 ms a second")
    server_mib, worker_mib = rig.pss_mib("server"), rig.pss_mib("worker")
    shown = f"{server_mib + worker_mib:.0f} MiB (server {server_mib:.0f}, worker {worker_mib:.0f})"
    yield Row("idle server and worker: memory, as PSS", shown, wanted="< 110 MiB")


def workers(rig: Rig, _: int) -> Iterator[Row]:
    """A server with many workers that have nothing to do."""
    before_mib = rig.rss_mib("server")
    for count, wanted in ((1_000, "< 5 %"), (5_000, "")):
        crowd = rig.spawn(sys.executable, str(CROWD), str(count))
        try:
            assert crowd.stdin
            assert crowd.stdout
            begin = time.perf_counter()
            if crowd.stdout.readline() != b"ready\n":
                raise RuntimeError(f"{count} workers could not join")
            joined_s = time.perf_counter() - begin
            time.sleep(SETTLE_S)
            share = busy_ms(rig, "server")[0] / 10
            grown_mib = rig.rss_mib("server") - before_mib
            shown = f"{share:.1f} %; {grown_mib:.0f} MiB more; all joined in {joined_s:.0f} s"
            yield Row(f"{count:,} idle workers: the server's share of a core", shown, wanted=wanted)
        finally:
            crowd.stdin.close()
            crowd.terminate()
            crowd.wait()
