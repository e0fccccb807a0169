"""`tq` with small bounds of its store: full logs, compactions and keys that expire come in seconds, not in hours.

    python -m tests.support.small_server server --listen 127.0.0.1:0

For tests of what must stay level (tests/faults/test_soak.py). The bounds are set before anything reads them.
"""

from tq import limits
from tq.limits import KIB, MIB

limits.wal_bytes_max = 512 * KIB  # type: ignore[misc]
limits.key_ttl_ms = 1_500  # type: ignore[misc]

from tq.cli.app import main  # noqa: E402 - the bounds come first
from tq.server.operation import loops  # noqa: E402
from tq.store import rocks, turns  # noqa: E402

rocks.memtable_bytes.update(dict.fromkeys(rocks.memtable_bytes, 64 * KIB))
rocks.block_cache_bytes = MIB  # type: ignore[misc]
rocks.manifest_bytes_max = 16 * KIB  # type: ignore[misc]
turns._TURNS = 500  # type: ignore[misc]
loops._JANITOR_S = 1.0  # type: ignore[misc]

if __name__ == "__main__":
    main()
