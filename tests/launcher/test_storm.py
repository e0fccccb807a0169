"""Everything at once, in random order: each attempt is answered exactly once, and nothing is left over."""

import random
from pathlib import Path

import pytest

from tests.support.launcher import Link, body, marker, processes, ref, usage
from tq.core.model.task import Cause
from tq.core.vocabulary import AttemptRef
from tq.launcher import protocol

ATTEMPTS = 300


def bodies(mark: str) -> list[bytes]:
    """Return tasks of every kind."""
    return [
        body("true"),
        body("sh", "-c", "echo $TQ_TASK; exit 3"),
        body("sleep", "0.03"),
        body("sh", "-c", f"head -c {random.randrange(200_000)} /dev/zero"),
        body("sh", "-c", f"sleep {mark} >/dev/null 2>&1 & exit 0"),
        body("sh", "-c", f"(setsid env -i sleep {mark} >/dev/null 2>&1 &)"),
        body("sh", "-c", "trap '' TERM; sleep 0.1; sleep 0.1", kill_after_ms=20),
        body("sleep", "1000", time_limit_ms=30),
        body("no-such-program"),
        body("true", cwd="/no/such/directory"),
        body("cat", stdin=b"input"),
        body("sh", "-c", "kill -9 $$"),
    ]


def open_files(link: Link) -> int:
    """Return how many descriptors the launcher has, those of stored inputs apart, which it keeps for later."""
    links = [place.readlink().name for place in Path(f"/proc/{link.process.pid}/fd").iterdir()]
    return sum(not name.startswith("memfd:") for name in links)


def check(link: Link, one: AttemptRef) -> None:
    """An end is consistent with itself and with the output that came before it."""
    end = link.ends[one]
    assert end.cause in {
        Cause.EXIT, Cause.SIGNAL, Cause.TIME_LIMIT, Cause.CANCELLED, Cause.SPAWN_FAILED, Cause.CWD_MISSING,
    }  # fmt: skip
    written = usage(end).written
    for stream in (1, 2):
        assert len(link.text(one, stream)) == written[stream - 1]


@pytest.mark.parametrize("seed", range(3))
def test_each_attempt_is_answered_once_and_nothing_is_left(seed):
    random.seed(seed)
    mark = marker()
    kinds = bodies(mark)
    refs = [ref(1 + number // 50, number % 50) for number in range(ATTEMPTS)]
    with Link(slots=6) as link:
        link.ping()
        before = open_files(link)
        waiting = list(refs)
        while waiting:
            count = random.randint(1, 20)
            batch, waiting = waiting[:count], waiting[count:]
            lane, width = random.randint(1, 5), random.randint(1, 4)
            link.spawn(random.choice(kinds), batch, lane=lane, width=width, is_array=True)
            some = random.sample(refs, 8)
            match random.randrange(5):
                case 0:
                    link.say(protocol.Recall(tuple(some)))
                case 1:
                    link.say(protocol.Stop(tuple(some), Cause.CANCELLED, random.choice([-1, 0, 10])))
                case 2:
                    link.say(protocol.Follow(some[0], random.choice([0, 10_000, 1_000_000])))
                case 3:
                    link.say(protocol.Slots(random.randint(1, 8)))
            link.hear(0.01)
        for lane in range(1, 6):
            link.spawn(body("true"), [], lane=lane, width=8)
        link.until(lambda: len(link.ends) + len(link.recalled) == ATTEMPTS)
        pong = link.ping()

        assert (pong.live, pong.queued, pong.degraded) == (0, 0, 0)
        assert set(link.ends).isdisjoint(link.recalled)
        for one in link.ends:
            check(link, one)
        assert processes(mark) == []
        assert open_files(link) == before
        assert link.children() == []
