"""Short calls are given to a process several at a time; to everybody else it looks as if it were one at a time.

Each rule of tq/launcher/functions/calls.py that is broken is found here: by a call that runs twice or not at all, or by
output that is another's.
"""

import os
import random
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.support.launcher import Link, body, call, ref, usage
from tq.core.model.task import Cause
from tq.core.vocabulary import AttemptRef
from tq.launcher import protocol
from tq.wire import plain

COUNT = 400
PLAIN = 59  # numbers up to this are never special


@pytest.fixture
def log(tmp_path):
    """Where each call notes that it runs."""
    return tmp_path / "log"


def runs(log: Path) -> Counter[int]:
    """Return how often each number has run, less once for those that ran before."""
    return Counter(map(int, log.read_bytes().split())) - Counter(range(1, PLAIN + 1))


def chain(link: Link, log: Path, special: dict[str, str], job: int = 1, count: int = COUNT) -> list[AttemptRef]:
    """Spawn an array of calls that are special for some numbers, once the launcher has learnt that they are short."""
    data = call("work:chain", special | {"log": str(log)})
    before = [ref(job + 1_000, member) for member in range(PLAIN)]
    link.spawn(data, before, is_array=True)
    until_all(link, before)
    link.order.clear()
    refs = [ref(job, member) for member in range(count)]
    link.spawn(data, refs, is_array=True)
    return refs


def until_all(link: Link, refs: list[AttemptRef]) -> None:
    link.until(lambda: all(one in link.ends or one in link.recalled for one in refs))


def endings(link: Link, refs: list[AttemptRef]) -> Counter[tuple[int, int]]:
    return Counter((link.ends[one].cause, link.ends[one].code) for one in refs if one in link.ends)


def values(link: Link, refs: list[AttemptRef]) -> set[int]:
    return {plain.loads(link.ends[one].value) for one in refs if one in link.ends and link.ends[one].value}


def numbers(*special: int, what: str) -> dict[str, str]:
    return {str(number): what for number in special}


def test_every_call_is_answered_once_with_its_own_value(link, log):
    refs = chain(link, log, {})

    until_all(link, refs)

    assert [plain.loads(link.ends[one].value) for one in refs] == list(range(1, COUNT + 1))
    assert runs(log) == Counter(range(1, COUNT + 1))


def test_each_has_its_own_variables_whoever_submitted_it(link):
    data = call("work:variables")
    members = [ref(1, member) for member in range(PLAIN)]
    alone = [ref(job) for job in range(2, PLAIN)]
    link.spawn(data, members, is_array=True)
    for one in alone:
        link.spawn(data, [one])
    until_all(link, [*members, *alone])

    for one in [*members, *alone]:
        seen = plain.loads(link.ends[one].value)
        task = f"{one.job}.{one.member + 1}" if one.job == 1 else str(one.job)
        assert (seen["TQ_TASK"], seen["TQ_JOB"], seen["TQ_FENCE"]) == (task, str(one.job), str(one.lease))
        assert ("TQ_MEMBER" in seen) == (one.job == 1)


def test_output_stays_with_its_call(link, log):
    printing = random.Random(7).sample(range(60, COUNT), 60)
    refs = chain(link, log, numbers(*printing, what="print"))

    until_all(link, refs)

    for number, one in enumerate(refs, 1):
        assert link.text(one) == (f"line of {number}\n".encode() if number in printing else b"")


def test_a_call_that_fills_its_pipe_is_read_and_delays_nobody_else(link, log):
    refs = chain(link, log, numbers(120, 121, 250, what="write"))

    until_all(link, refs)

    assert {number for number, one in enumerate(refs, 1) if usage(link.ends[one]).written[1]} == {120, 121, 250}
    assert usage(link.ends[refs[119]]).written == (0, 100_000)
    assert values(link, refs) == set(range(1, COUNT + 1))


def test_a_crash_is_that_of_the_call_that_crashed(link, log):
    special = numbers(100, 101, 230, COUNT, what="exit")
    refs = chain(link, log, special)

    until_all(link, refs)

    assert {str(number) for number, one in enumerate(refs, 1) if link.ends[one].code == 3} == set(special)
    assert endings(link, refs) == {(Cause.EXIT, 0): COUNT - 4, (Cause.EXIT, 3): 4}
    assert len(link.order) == COUNT
    assert runs(log) == Counter(range(1, COUNT + 1))


def test_a_call_that_closes_what_is_not_its_own_fails_alone(link, log):
    refs = chain(link, log, numbers(100, 222, what="close"))

    until_all(link, refs)

    assert {number for number, one in enumerate(refs, 1) if link.ends[one].code} == {100, 222}
    assert runs(log) == Counter(range(1, COUNT + 1))


def test_a_process_that_is_replaced_loses_no_call(link, log):
    refs = chain(link, log, numbers(90, 180, 181, what="leave"))

    until_all(link, refs)

    assert values(link, refs) == set(range(1, COUNT + 1))
    assert runs(log) == Counter(range(1, COUNT + 1))


def test_nothing_stands_behind_a_call_that_turns_out_long(link, log):
    refs = chain(link, log, numbers(200, what="wait"))

    link.until(lambda: len(link.order) == COUNT - 1)

    assert refs[199] not in link.ends
    assert link.started.count(refs[199]) == 1
    assert link.stop(refs[199]).cause == Cause.CANCELLED


def test_two_long_calls_give_back_what_stood_behind_them_when_it_is_recalled(link, log):
    refs = chain(link, log, numbers(100, 101, what="wait"))
    waiting = [refs[99], refs[100]]
    link.until(lambda: set(waiting) <= set(link.started))

    link.say(protocol.Recall(tuple(refs)))
    until_all(link, [one for one in refs if one not in waiting])

    assert set(link.recalled) == set(refs[101:]) - set(link.ends)
    assert not set(link.recalled) & set(link.ends)
    assert runs(log) == Counter(number for number, one in enumerate(refs, 1) if one not in link.recalled)
    for one in waiting:
        assert link.stop(one).cause == Cause.CANCELLED


@pytest.mark.parametrize("seed", range(6))
def test_stops_and_recalls_at_any_moment_end_each_attempt_once(link, log, seed):
    dice = random.Random(seed)
    refs = chain(link, log, numbers(150, what="pause") | numbers(60, 220, what="print"))
    chosen = dice.sample(refs, 120)
    for at in range(0, 120, 12):
        some = tuple(chosen[at : at + 12])
        link.say(protocol.Stop(some, Cause.CANCELLED, 0) if dice.random() < 0.5 else protocol.Recall(some))
        link.hear(0.002)
    until_all(link, refs)

    assert not set(link.recalled) & set(link.ends)
    assert len(link.order) + len(link.recalled) == COUNT
    never = {number for number, one in enumerate(refs, 1) if one in link.recalled or link.ends[one].run_us == 0}
    assert max(runs(log).values()) == 1
    assert not never & set(runs(log))
    ended = endings(link, refs)
    assert set(ended) <= {(Cause.EXIT, 0), (Cause.CANCELLED, 0), (Cause.CANCELLED, -9)}
    for number, one in enumerate(refs, 1):
        if one in link.ends and link.ends[one].cause == Cause.EXIT:
            assert plain.loads(link.ends[one].value) == number
            assert link.text(one) == (f"line of {number}\n".encode() if number in {60, 220} else b"")


def test_one_that_is_followed_is_alone_in_its_process(link, log):
    refs = chain(link, log, numbers(300, what="wait"))
    link.say(protocol.Follow(refs[299], 1 << 20))

    link.until(lambda: link.outputs.get((refs[299], 1)))

    assert link.text(refs[299]) == b"ready\n"
    link.until(lambda: len(link.order) == COUNT - 1)
    link.stop(refs[299])


def test_calls_and_commands_of_one_lane_do_not_mix(link, log):
    chain(link, log, {}, job=1, count=0)
    first, last = ([ref(job, member) for member in range(100)] for job in (1, 3))
    others = [ref(2, member) for member in range(20)]
    link.spawn(call("work:chain", {"log": str(log)}), first, is_array=True)
    link.spawn(call("work:count"), others)
    link.spawn(body("true"), [ref(4)])
    link.spawn(call("work:chain", {"log": str(log)}), last, is_array=True)
    others.append(ref(4))

    until_all(link, [*first, *others, *last])

    assert endings(link, [*first, *others, *last]) == {(Cause.EXIT, 0): 221}


def test_a_process_that_is_killed_from_outside_costs_the_call_that_runs_alone(link, log):
    refs = chain(link, log, numbers(150, what="wait"))
    link.until(lambda: refs[149] in link.started)
    pids = link.children()
    link.until(lambda: len(link.order) == COUNT - 1)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    link.until(lambda: refs[149] in link.ends)

    assert (link.ends[refs[149]].cause, link.ends[refs[149]].code) == (Cause.SIGNAL, -9)
    assert endings(link, refs)[(Cause.EXIT, 0)] == COUNT - 1
