import resource

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tq.limits import strikes_addresses_max
from tq.net.connection_quota import AuthFailures, ConnectionQuota, Seat, SeatBounds, origin_of, within_open_files
from tq.net.listen import Arrival

FAR = "203.0.113.7"


def taken(seats: ConnectionQuota, host: str) -> Seat:
    seat = seats.take(host)
    assert seat is not None
    return seat


async def test_one_address_has_only_so_many_unauthenticated_connections() -> None:
    seats = ConnectionQuota(SeatBounds(unauthenticated_by_address_max=2))
    first = taken(seats, FAR)
    taken(seats, FAR)

    assert seats.take(FAR) is None
    assert seats.take("203.0.113.8") is not None

    seats.admit(first)
    assert seats.take(FAR) is not None


def test_one_token_leaves_places_to_others() -> None:
    assert SeatBounds(connections_max=800).share_max == 700
    assert SeatBounds(connections_max=8).share_max == 7


async def test_loopback_counts_in_all_only() -> None:
    seats = ConnectionQuota(SeatBounds(unauthenticated_by_address_max=2))

    assert all(seats.take("127.0.0.1") for _ in range(9))
    assert all(seats.take("::1") for _ in range(9))


def test_wrong_tokens_of_an_address_make_its_next_ones_wait_longer_and_longer() -> None:
    failures, pauses = AuthFailures(), []
    for now_s in range(8):
        pauses.append(failures.pause_s(FAR, now_s))
        failures.add(FAR, now_s)
    assert pauses == pytest.approx([0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.0, 3.0])
    assert failures.pause_s("203.0.113.8", 8) == 0
    assert failures.pause_s(FAR, 100) == 0, "a quiet minute is enough"


def test_loopback_never_waits_and_the_list_of_the_others_is_bounded() -> None:
    failures = AuthFailures()
    failures.add("", 1)
    assert failures.pause_s("", 1) == 0
    failures.add(FAR, 1)
    for number in range(strikes_addresses_max):
        failures.add(f"host{number}", 1)
    assert failures.pause_s(FAR, 1) == 0
    assert failures.pause_s("host1", 1) > 0


async def test_who_is_held_back_has_that_much_longer_for_its_hello(autojump_clock: MockClock) -> None:
    seats = ConnectionQuota(SeatBounds(hello_s=5.0))
    seat = taken(seats, FAR)
    arrival = Arrival(None, FAR, 1, seats, seat)  # type: ignore[arg-type]
    await arrival.hold_back()
    assert trio.current_time() == 0
    for _ in range(9):
        arrival.strike()
    await arrival.hold_back()
    assert (trio.current_time(), seat.scope.deadline) == (3.0, 8.0)


@pytest.mark.parametrize(
    "host,origin",
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("127.1.2.3", ""),
        ("::1", ""),
        ("::ffff:127.0.0.1", ""),
        ("somebody", ""),
    ],
)
def test_an_ipv6_subscriber_is_one_address(host: str, origin: str) -> None:
    assert origin_of(host) == origin


async def wait(seats: ConnectionQuota, done: list[str]) -> None:
    await seats.wait_free()
    done.append("free")


async def test_when_all_places_are_taken_the_next_waits_for_one_that_leaves() -> None:
    seats, done = ConnectionQuota(SeatBounds(unauthenticated_max=1, yield_seat_s=1e9)), list[str]()
    seat = taken(seats, FAR)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, seats, done)
        await wait_all_tasks_blocked()
        assert done == []
        seats.leave(seat)
        await wait_all_tasks_blocked()
        assert done == ["free"]


async def test_an_admitted_connection_makes_room_for_another_hello() -> None:
    seats, done = ConnectionQuota(SeatBounds(unauthenticated_max=1, yield_seat_s=1e9)), list[str]()
    seat = taken(seats, FAR)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, seats, done)
        await wait_all_tasks_blocked()
        seats.admit(seat)

    assert done == ["free"]
    assert seats.taken == 1


async def test_a_young_connection_keeps_its_place_and_the_oldest_gives_it_up_after_a_second(
    autojump_clock: MockClock,
) -> None:
    seats, done = ConnectionQuota(SeatBounds(unauthenticated_max=2, yield_seat_s=1.0)), list[str]()

    async def hold() -> None:
        seat = taken(seats, FAR)
        with seat.scope:
            await trio.sleep_forever()
        done.append(f"{seat.why} at {trio.current_time():g}")
        seats.leave(seat)

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold)
        await trio.sleep(0.5)
        nursery.start_soon(hold)
        await wait_all_tasks_blocked()
        await wait(seats, done)
        nursery.cancel_scope.cancel()

    assert done[0].startswith("gave up its seat")
    assert done[0].endswith(f"at {start + 1:g}")
    assert done[1] == "free"


async def test_authenticated_connections_never_give_up_their_seats(autojump_clock: MockClock) -> None:
    seats = ConnectionQuota(SeatBounds(connections_max=2, yield_seat_s=0.0))
    held = [taken(seats, FAR), taken(seats, FAR)]
    for seat in held:
        seats.admit(seat)

    with trio.move_on_after(100) as waited:
        await seats.wait_free()

    assert waited.cancelled_caught
    assert not any(seat.scope.cancel_called for seat in held)


async def test_leaving_gives_everything_back() -> None:
    seats = ConnectionQuota(SeatBounds())
    held = [taken(seats, FAR) for _ in range(5)]
    seats.admit(held[0])
    seats.admit(held[0])
    for seat in held:
        seats.leave(seat)

    assert seats.taken == 0
    assert not seats._unauthenticated
    assert not seats._by_address


@pytest.mark.parametrize(
    "files,connections", [(1_024, 640), (100, 16), (2**20, 20_000), (resource.RLIM_INFINITY, 20_000)]
)
def test_there_are_no_more_connections_than_files_may_be_open(
    files: int, connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))

    assert within_open_files(SeatBounds()).connections_max == connections
