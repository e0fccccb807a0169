"""Who is served when many want something: everybody a slice, in turn."""

from tests.server.rig import submit
from tq.errors import NotDone
from tq.server.commit.intake import Inlet, Intake, Request, inlet_bulk_bytes_max, inlet_requests_max, slice_requests


def fill(inlet: Inlet, name: str, count: int) -> None:
    inlet.put([Request(submit(), f"{name}{number}") for number in range(count)])


def taken(intake: Intake, count: int) -> list[str]:
    requests = [intake.take() for _ in range(count)]
    return [request.submitter for request in requests if request is not None]


def test_requests_of_one_peer_keep_their_order() -> None:
    intake = Intake()
    inlet = intake.inlet()
    fill(inlet, "a", 100)

    assert taken(intake, 101) == [f"a{number}" for number in range(100)]


def test_a_single_request_does_not_stand_behind_somebody_elses_bulk() -> None:
    intake = Intake()
    bulk, single = intake.inlet(), intake.inlet()
    fill(bulk, "bulk", 500)
    fill(single, "single", 1)

    assert "single0" in taken(intake, slice_requests + 1)


def test_bulk_loads_share_evenly() -> None:
    intake = Intake()
    inlets = [intake.inlet() for _ in range(3)]
    for name, inlet in zip("abc", inlets, strict=True):
        fill(inlet, name, 200)
    first = taken(intake, 3 * slice_requests)

    assert [sum(name.startswith(letter) for name in first) for letter in "abc"] == [slice_requests] * 3


def test_a_turn_begins_with_another_peer_than_the_one_before_was_cut_off_at() -> None:
    intake = Intake()
    first, second = intake.inlet(), intake.inlet()
    fill(first, "a", 100)
    fill(second, "b", 100)
    taken(intake, 2)
    intake.rotate()

    assert taken(intake, 1) == ["b0"]


def test_an_inlet_is_bounded_and_says_when_there_is_room_again() -> None:
    told = []
    intake = Intake()
    inlet = intake.inlet(lambda: told.append(len(inlet)))
    fill(inlet, "a", inlet_requests_max)
    assert inlet.is_full

    taken(intake, inlet_requests_max // 2 - 1)
    assert told == []
    taken(intake, 1)
    assert told == [inlet_requests_max // 2]
    assert not inlet.is_full


def test_a_closed_intake_answers_what_comes_and_still_gives_what_waits() -> None:
    answers = []
    intake = Intake()
    inlet = intake.inlet()
    fill(inlet, "a", 1)
    intake.close(NotDone("stopping"))
    inlet.put([Request(submit(), "late", answers.append), Request(submit(), "nobody asks")])

    assert [type(answer) for answer in answers] == [NotDone]
    assert taken(intake, 2) == ["a0"]


def test_work_is_announced() -> None:
    told = []
    intake = Intake()
    intake.on_work = lambda: told.append(1)
    inlet = intake.inlet()
    inlet.put([])
    assert told == []
    fill(inlet, "a", 3)
    assert told == [1]


def bulk(inlet: Inlet, name: str, count: int, size: int = 1_000) -> None:
    inlet.put([Request(submit(), f"{name}{number}", None, size) for number in range(count)])


def test_a_part_of_an_upload_is_a_slice_by_itself() -> None:
    intake = Intake()
    first, second = intake.inlet(), intake.inlet()
    bulk(first, "bulk", 3)
    fill(second, "single", 2)

    assert taken(intake, 5) == ["bulk0", "single0", "single1", "bulk1", "bulk2"]


def test_a_turn_with_its_fill_of_bulk_takes_only_what_stands_before_none() -> None:
    intake = Intake()
    first, second, third = intake.inlet(), intake.inlet(), intake.inlet()
    bulk(first, "bulk", 2)
    fill(second, "a", 1)
    bulk(second, "behind", 1)
    fill(third, "b", 1)
    found = [intake.take(may_be_bulk=False) for _ in range(4)]

    assert [request and request.submitter for request in found] == ["a0", "b0", None, None]
    assert sorted(taken(intake, 4)) == ["behind0", "bulk0", "bulk1"]
    assert intake.take(may_be_bulk=False) is None


def test_an_inlet_is_bounded_in_bytes_of_bulk() -> None:
    told: list[int] = []
    intake = Intake()
    inlet = intake.inlet(lambda: told.append(len(inlet)))
    bulk(inlet, "part", 4, inlet_bulk_bytes_max // 4)
    assert inlet.is_full

    taken(intake, 1)
    assert told == []
    taken(intake, 1)
    assert told == [2]
    assert not inlet.is_full
