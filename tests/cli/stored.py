"""What a server of a test has got: the entries of a job, the body of the last submit."""

import itertools

from tests.cli.fake import FakeServer
from tests.support.house import House
from tq.core.model import tables
from tq.wire.body import Body
from tq.wire.codec import loads


def entries(house: House, number: int = 1) -> list[bytes]:
    """Return the entries of a job, in the order of its members."""
    job = house.store.get(tables.JOB, (number, 0))
    assert job is not None
    rows = house.store.scan(tables.ENTRIES, (job.entries,), (job.entries + 1,), 1_000_000)
    found = [item for _, run in rows for item in run.items]
    assert [key[1] for key, _ in rows] == [0, *itertools.accumulate(len(run.items) for _, run in rows)][:-1]
    assert len(found) == job.size
    return found


def body(server: FakeServer) -> Body:
    return loads(server.asked[-1].body, Body)
