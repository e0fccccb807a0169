import resource

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tq.limits import strikes_addresses_max
from tq.net.listen import Arrival
from tq.net.places import Bounds, Place, Places, origin_of, within_open_files
from tq.net.strikes import Strikes

FAR = "203.0.113.7"


def taken(places: Places, host: str) -> Place:
    place = places.take(host)
    assert place is not None
    return place


async def test_one_address_has_only_so_many_unauthenticated_connections() -> None:
    places = Places(Bounds(unauthenticated_by_address_max=2))
    first = taken(places, FAR)
    taken(places, FAR)

    assert places.take(FAR) is None
    assert places.take("203.0.113.8") is not None

    places.admit(first)
    assert places.take(FAR) is not None


def test_one_token_leaves_places_to_others() -> None:
    assert Bounds(connections_max=800).share_max == 700
    assert Bounds(connections_max=8).share_max == 7


async def test_loopback_counts_in_all_only() -> None:
    places = Places(Bounds(unauthenticated_by_address_max=2))

    assert all(places.take("127.0.0.1") for _ in range(9))
    assert all(places.take("::1") for _ in range(9))


def test_wrong_tokens_of_an_address_make_its_next_ones_wait_longer_and_longer() -> None:
    strikes, pauses = Strikes(), []
    for now_s in range(8):
        pauses.append(strikes.pause_s(FAR, now_s))
        strikes.add(FAR, now_s)
    assert pauses == pytest.approx([0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.0, 3.0])
    assert strikes.pause_s("203.0.113.8", 8) == 0
    assert strikes.pause_s(FAR, 100) == 0, "a quiet minute is enough"


def test_loopback_never_waits_and_the_list_of_the_others_is_bounded() -> None:
    strikes = Strikes()
    strikes.add("", 1)
    assert strikes.pause_s("", 1) == 0
    strikes.add(FAR, 1)
    for number in range(strikes_addresses_max):
        strikes.add(f"host{number}", 1)
    assert strikes.pause_s(FAR, 1) == 0
    assert strikes.pause_s("host1", 1) > 0


async def test_who_is_held_back_has_that_much_longer_for_its_hello(autojump_clock: MockClock) -> None:
    places = Places(Bounds(hello_s=5.0))
    place = taken(places, FAR)
    arrival = Arrival(None, FAR, 1, places, place)  # type: ignore[arg-type]
    await arrival.hold_back()
    assert trio.current_time() == 0
    for _ in range(9):
        arrival.strike()
    await arrival.hold_back()
    assert (trio.current_time(), place.scope.deadline) == (3.0, 8.0)


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


async def wait(places: Places, done: list[str]) -> None:
    await places.wait_free()
    done.append("free")


async def test_when_all_places_are_taken_the_next_waits_for_one_that_leaves() -> None:
    places, done = Places(Bounds(unauthenticated_max=1, yield_place_s=1e9)), list[str]()
    place = taken(places, FAR)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, places, done)
        await wait_all_tasks_blocked()
        assert done == []
        places.leave(place)
        await wait_all_tasks_blocked()
        assert done == ["free"]


async def test_an_admitted_connection_makes_room_for_another_hello() -> None:
    places, done = Places(Bounds(unauthenticated_max=1, yield_place_s=1e9)), list[str]()
    place = taken(places, FAR)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, places, done)
        await wait_all_tasks_blocked()
        places.admit(place)

    assert done == ["free"]
    assert places.taken == 1


async def test_a_young_connection_keeps_its_place_and_the_oldest_gives_it_up_after_a_second(
    autojump_clock: MockClock,
) -> None:
    places, done = Places(Bounds(unauthenticated_max=2, yield_place_s=1.0)), list[str]()

    async def hold() -> None:
        place = taken(places, FAR)
        with place.scope:
            await trio.sleep_forever()
        done.append(f"{place.why} at {trio.current_time():g}")
        places.leave(place)

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold)
        await trio.sleep(0.5)
        nursery.start_soon(hold)
        await wait_all_tasks_blocked()
        await wait(places, done)
        nursery.cancel_scope.cancel()

    assert done[0].startswith("gave up its place")
    assert done[0].endswith(f"at {start + 1:g}")
    assert done[1] == "free"


async def test_authenticated_connections_never_give_up_their_places(autojump_clock: MockClock) -> None:
    places = Places(Bounds(connections_max=2, yield_place_s=0.0))
    held = [taken(places, FAR), taken(places, FAR)]
    for place in held:
        places.admit(place)

    with trio.move_on_after(100) as waited:
        await places.wait_free()

    assert waited.cancelled_caught
    assert not any(place.scope.cancel_called for place in held)


async def test_leaving_gives_everything_back() -> None:
    places = Places(Bounds())
    held = [taken(places, FAR) for _ in range(5)]
    places.admit(held[0])
    places.admit(held[0])
    for place in held:
        places.leave(place)

    assert places.taken == 0
    assert not places._unauthenticated
    assert not places._by_address


@pytest.mark.parametrize(
    "files,connections", [(1_024, 640), (100, 16), (2**20, 20_000), (resource.RLIM_INFINITY, 20_000)]
)
def test_there_are_no_more_connections_than_files_may_be_open(
    files: int, connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))

    assert within_open_files(Bounds()).connections_max == connections
