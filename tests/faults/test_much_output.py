"""A task that writes far more than is kept: memory of worker and launcher, the log store, and what is counted.

TQ_OUTPUT_MB sets how much it writes (default 400, on both streams together); 10000 is what the figures in
docs/reliability.md are of.
"""

import os
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.town import Town, town
from tq import limits
from tq.core.vocabulary import Chunk, Logs, LogsEnd
from tq.launcher.output import dropped_bytes
from tq.limits import MIB

STREAM_BYTES: Final = int(os.environ.get("TQ_OUTPUT_MB", "400")) * 1_000_000 // 2 + 7  # no whole slot
KEPT_BYTES_MAX: Final = (limits.output_head_slots + limits.output_ring_slots) * limits.output_slot_bytes
PATTERN: Final = b"0123456789abcde\n"
PATIENCE: Final = "30m"


def peak_kib(pid: int) -> int:
    """Return the highest resident memory that a process has had."""
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")[2].split()[0])


def stored_bytes(place: Path) -> int:
    return sum(path.stat().st_size for path in place.rglob("*") if path.is_file())


def check_kept(here: Town, job: str, streams: dict[str, Any]) -> None:
    """Check that what the server has of each stream is its head and its end, and that what is missing was counted."""
    kept = {1: 0, 2: 0}
    with here.client() as client:
        for answer in client.subscribe(lambda: Logs(job)):
            if isinstance(answer, LogsEnd):
                assert answer.totals == (STREAM_BYTES, STREAM_BYTES)
                break
            assert isinstance(answer, Chunk)
            for begin in range(0, len(answer.data), 4_096):
                offset = answer.offset + begin
                piece = answer.data[begin : begin + 4_096]
                assert (PATTERN * 258)[offset % 16 :][: len(piece)] == piece
            kept[answer.stream] += len(answer.data)
    for number, name in ((1, "stdout"), (2, "stderr")):
        assert streams[f"{name}_bytes"] == STREAM_BYTES
        assert streams[f"{name}_dropped_bytes"] == dropped_bytes(STREAM_BYTES)
        assert kept[number] == STREAM_BYTES - dropped_bytes(STREAM_BYTES) <= KEPT_BYTES_MAX


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("is_followed", [False, True])
def test_however_much_a_task_writes_it_costs_bounded_memory_and_disk(tmp_path: Path, is_followed: bool) -> None:
    line = PATTERN.decode().strip()
    flood = f"yes {line} | head -c {STREAM_BYTES} & yes {line} | head -c {STREAM_BYTES} >&2; wait"
    with town(tmp_path) as here:
        worker = here.worker()
        job = here.submit("sh", "-c", flood)
        follower = here.popen("logs", "--follow", job, stdout=-3, stderr=-3) if is_followed else None
        assert here.wait(job, timeout=PATIENCE) == 0
        if follower is not None:
            assert follower.wait() == 0
        check_kept(here, job, here.show(job)["usage"])
        peaks = {"worker": peak_kib(worker.pid), "launcher": peak_kib(worker.launcher)}
        disk = stored_bytes(here.server.data)
        print(f"{2 * STREAM_BYTES} bytes, followed: {is_followed}; peaks in KiB {peaks}, "
              f"server {peak_kib(here.server.process.pid)}; data directory {disk} bytes")  # fmt: skip

        assert sum(peaks.values()) < 150 * 1_024
        assert disk < limits.wal_bytes_max + 64 * MIB  # what the ring has overwritten goes as the store compacts
