"""A `tq` whose disk never answers again once DATA/stuck is there: then it makes DATA/sticks. It stops waiting soon."""

import os
import threading
from pathlib import Path

from tq import limits
from tq.cli.app import main
from tq.server import serve
from tq.server.commit import committer
from tq.store import rocks

_STUCK = Path(os.environ["TQ_DATA"]) / "stuck"
_sync_log = rocks.Database.sync_log


def _sync_log_or_stick(database: rocks.Database) -> None:
    if _STUCK.exists():
        _STUCK.with_name("sticks").touch()
        threading.Event().wait()
    _sync_log(database)


if __name__ == "__main__":
    rocks.Database.sync_log = _sync_log_or_stick  # type: ignore[method-assign]
    committer.JOIN_S = 0.2
    limits.stop_s_max = serve._GOODBYE_S + 0.5  # type: ignore[misc]
    main()
