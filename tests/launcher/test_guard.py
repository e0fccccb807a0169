"""`--if-cut stop`: what must not outlive its worker's lease is killed by the launcher itself. Real processes."""

import signal
import time

import pytest

from tests.support.launcher import Link, body, call, marker, processes, ref, wait_gone
from tests.support.processes import freeze_tree, thaw
from tq.core.model.task import Cause
from tq.core.vocabulary import AttemptRef
from tq.launcher import protocol
from tq.launcher.guard import boot_s

FOR_EVER_S = 3_600.0
OVER_S = -1.0
LEASE_S = 2.0  # renewed twenty times as often


def lease(link: Link, seconds: float) -> None:
    link.say(protocol.Lease(boot_s() + seconds))


def guarded(*argv: str) -> bytes:
    return body(*argv, stops_when_cut=True)


def begin(link: Link, script: str, job: int = 1) -> AttemptRef:
    """Start a guarded script, renew the lease until it has said `ready`, and then no more: it is over soon."""
    one = ref(job)
    lease(link, LEASE_S)
    link.spawn(guarded("sh", "-c", script), [one])
    link.say(protocol.Follow(one, 1 << 20))
    while b"ready" not in b"".join(link.outputs.get((one, 1), {}).values()):
        assert one not in link.ends, "it lives for as long as the lease is renewed"
        lease(link, LEASE_S)
        link.hear(LEASE_S / 20)
    return one


def test_it_runs_while_the_lease_lasts_and_ends_as_any_other(link: Link) -> None:
    lease(link, FOR_EVER_S)
    end = link.run(guarded("sh", "-c", "exit 3"))
    assert (end.cause, end.code) == (Cause.EXIT, 3)


def test_when_the_lease_is_over_it_is_killed_at_once_whatever_it_ignores_and_the_others_run_on(link: Link) -> None:
    other = marker()
    calm = link.begin(body("sh", "-c", f"echo ready; exec sleep {other}"), 1)
    bound = begin(link, "trap '' TERM; echo ready; sleep 60; sleep 60", 2)
    link.until(lambda: bound in link.ends)
    assert (link.ends[bound].cause, link.ends[bound].code) == (Cause.CUT_OFF, -signal.SIGKILL)
    assert calm not in link.ends
    assert processes(other)


def test_a_lease_that_is_cut_short_is_over(link: Link) -> None:
    """The server has come back with shorter beats: it gives away sooner what the worker has."""
    lease(link, FOR_EVER_S)
    bound = link.begin(guarded("sh", "-c", "echo ready; sleep 60"), 2)
    lease(link, OVER_S)
    link.until(lambda: bound in link.ends)
    assert link.ends[bound].cause == Cause.CUT_OFF


@pytest.mark.parametrize("is_leased", [False, True], ids=["no lease yet", "a lease that is over"])
def test_without_a_lease_nothing_of_it_starts_and_it_goes_back(link: Link, is_leased: bool) -> None:
    if is_leased:
        lease(link, OVER_S)
    word = marker()
    link.spawn(guarded("sleep", word), [ref(1), ref(2)])
    link.until(lambda: {ref(1), ref(2)} <= link.recalled.keys())
    assert {link.recalled[one].cause for one in (ref(1), ref(2))} == {Cause.NONE}
    assert not processes(word)
    assert link.run(body("true"), 3).code == 0


@pytest.mark.slow
def test_what_waits_behind_others_goes_back_when_the_lease_is_over() -> None:
    with Link(slots=1) as link:
        first = begin(link, "echo ready; exec sleep 60", 1)
        link.spawn(guarded("true"), [ref(2), ref(3)])
        lease(link, OVER_S)
        link.until(lambda: {ref(2), ref(3)} <= link.recalled.keys() and first in link.ends)
        assert link.ends[first].cause == Cause.CUT_OFF
        assert link.ends.keys() == {first}


def test_a_function_ends_when_the_lease_is_over_and_the_others_go_on(link: Link) -> None:
    word = marker()
    lease(link, 1.0)
    one = ref(1)
    link.spawn(call("work:sleep", word, stops_when_cut=True), [one])
    link.until(lambda: one in link.ends or one in link.recalled)
    assert all(end.cause == Cause.CUT_OFF for end in link.ends.values())
    wait_gone(word)
    assert link.run(call("work:echo", 1), 2).code == 0


@pytest.mark.slow
def test_the_cause_that_came_first_stands(link: Link) -> None:
    one = begin(link, "trap '' TERM; echo ready; while :; do sleep 1; done")
    link.say(protocol.Stop((one,), Cause.CANCELLED))
    lease(link, OVER_S)
    link.until(lambda: one in link.ends)
    assert (link.ends[one].cause, link.ends[one].code) == (Cause.CANCELLED, -signal.SIGKILL)


@pytest.mark.slow
def test_a_launcher_that_was_frozen_kills_before_it_does_anything_else() -> None:
    word = marker()
    with Link(slots=2) as link:
        one = begin(link, f"echo ready; exec sleep {word}")
        until_s = boot_s() + LEASE_S
        pids = freeze_tree(link.process.pid)
        link.spawn(guarded("true"), [ref(2)])  # lies in the socket when it wakes up
        time.sleep(max(0.0, until_s - boot_s()))  # the length of the freeze is what is tested
        thaw(pids)
        link.until(lambda: one in link.ends and ref(2) in link.recalled)
        assert link.ends[one].cause == Cause.CUT_OFF
        assert ref(2) not in link.ends
        wait_gone(word)
