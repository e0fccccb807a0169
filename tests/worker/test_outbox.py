"""What a worker reports fits into the frames of the protocol, however much was returned."""

import msgspec
import pytest
from msgspec.structs import asdict, force_setattr

from tests.support.launcher import ref
from tq import limits
from tq.core.model.task import Cause
from tq.core.vocabulary import End
from tq.wire.connection import Connection
from tq.wire.messages import Ended, HandedBack
from tq.worker.instructions import Delivery
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


def odd(of: Delivery) -> Delivery:
    """Fill in every field that has a default with another value, so that one which is left behind shows."""
    for field in msgspec.structs.fields(of):
        if field.default is not msgspec.NODEFAULT:
            assert field.type in {int, str}, f"{field.name}: say what is no default of it"
            force_setattr(of, field.name, 7 if field.type is int else "odd")
    return of


@pytest.mark.parametrize(
    "whole, of_attempts",
    [
        (Ended(3, tuple(End(ref(1, member), Cause.EXIT, 0, 1) for member in (1, 2))), "ends"),
        (HandedBack(3, (ref(1, 1), ref(1, 2))), "attempts"),
    ],
)
def test_a_delivery_that_loses_an_attempt_keeps_all_else_that_it_says(whole: Delivery, of_attempts: str) -> None:
    whole = odd(whole)
    outbox = Outbox()
    outbox.restore([whole])

    outbox.settle({ref(1, 2)})

    (left,) = outbox
    assert asdict(left) == asdict(whole) | {of_attempts: getattr(whole, of_attempts)[:1]}
