"""Make the store of this release, with a row in every table, that every later release must open.

    python -m tests.store.make_store

writes tests/store/data/format-N.tar.gz, once for each release; a released one is never made anew.
"""

import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from tests.store.test_records import example
from tests.support.store import commit, disk_store
from tq.core.model.tables import TABLES
from tq.core.model.view import Key, Table
from tq.store.directory import FORMAT

DATA: Final = Path(__file__).parent / "data"
OUTPUT: Final = b"what it printed\n"


def a_key(table: Table[Any]) -> Key:
    """Return the key of the one row of a table: fields numbered from 1, `grün` for a name."""
    return tuple("grün" if field == "name" else place for place, field in enumerate(table.fields, 1))


def make(place: Path) -> Path:
    """Write the packed store into `place` and return its path."""
    packed = place / f"format-{FORMAT}.tar.gz"
    with TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        with disk_store(data) as store:
            for table in TABLES:
                commit(store, {table: {a_key(table): example(table.record)}})
            store.put_output((1, 2, 3), 1, 1, 0, OUTPUT)
            commit(store, {})
        with tarfile.open(packed, "w:gz") as tar:
            tar.add(data, "data", filter=_only_what_counts)
    return packed


def _only_what_counts(found: tarfile.TarInfo) -> tarfile.TarInfo | None:
    name = Path(found.name).name
    found.uid = found.gid = 0
    found.uname = found.gname = ""
    return None if name.startswith("LOG") or name in {"LOCK", "server.lock"} else found


if __name__ == "__main__":
    DATA.mkdir(exist_ok=True)
    print(make(DATA))
