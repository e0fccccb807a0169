"""What a worker reports fits into the frames of the protocol, however much was returned."""

import pytest

from tests.support.launcher import ref
from tq import limits
from tq.core.task import Cause
from tq.core.vocabulary import End
from tq.wire.connection import Connection
from tq.wire.messages import Ended
from tq.worker.outbox import Outbox


@pytest.mark.parametrize("sizes", [[limits.result_bytes_max] * 20, [60_000] * 20, [0] * 3_000, [900] * 2_500])
def test_reports_are_divided_so_that_each_fits_a_frame(sizes):
    ends = tuple(
        End(ref(1, member), Cause.EXIT, 0, 1, b"u" * limits.result_inline_bytes_max, b"v" * size)
        for member, size in enumerate(sizes)
    )
    outbox = Outbox()
    outbox.report(ends)

    deliveries = list(outbox)

    assert [end for delivery in deliveries for end in delivery.ends] == list(ends)  # type: ignore[union-attr]
    for delivery in deliveries:
        assert isinstance(delivery, Ended)
        assert len(delivery.ends) <= limits.members_per_command_max
        Connection().encode(delivery)  # TooLarge for what no frame could carry
