"""The same request again: `tq rerun`, and `tq submit --like` with parts of it changed."""

from collections.abc import Callable, Iterator

import msgspec
import pytest

from tests.cli.conftest import Run
from tests.cli.fake import FakeServer
from tests.cli.stored import body, entries
from tests.support.house import House
from tq.core import vocabulary as v
from tq.core.model import tables
from tq.errors import NotAllowed, StoreDamaged, TooManyLanes
from tq.wire.body import Body
from tq.wire.codec import loads

Give = Callable[[bytes], None]


@pytest.fixture
def made(run: Run, house: House, server: FakeServer) -> Iterator[House]:
    """Job 1: two lines, and what can be said of a job."""
    run(
        "submit", "--name", "n", "--tag", "t", "--queue", "q", "--priority", "7", "--cpus", "2", "--cwd", "/",
        "--env", "A=1", "--env", "B=2", "--time-limit", "5s", "--kill-after", "1s", "--array", "%2", "--max-fails",
        "3", "--", "echo", "{}", ":::", "a", "b", "c",
    )  # fmt: skip
    server.asked.clear()
    return house


def test_rerun_makes_the_same_job_again_and_shares_its_entries(run: Run, made: House, server: FakeServer) -> None:
    assert run("rerun", "1") == (0, "2\n", "")
    assert entries(made, 2) == [b"a", b"b", b"c"]
    first, second = (made.store.get(tables.JOB, (number, 0)) for number in (1, 2))
    assert first is not None
    assert second is not None
    assert second.key != first.key
    replaced = msgspec.structs.replace(second, key=first.key, submitted_ms=first.submitted_ms)
    assert replaced == first
    assert run("rerun", "1", "last") == (0, "3\n4\n", "")


def test_rerun_of_a_filter_means_every_such_job_oldest_first_and_is_confirmed(run: Run, made: House) -> None:
    run("submit", "--tag", "t", "--", "true")
    made.do(v.Cancel(("2",)))
    for word, count in (("all", 2), ("t", 2)):
        refused = run("rerun", word)
        assert (refused.status, refused.out) == (2, "")
        assert f"`tq rerun` would touch {count} jobs; say so with --yes" in refused.err
        assert run("rerun", word, "--dry-run") == (0, "", "tq: nothing is done; without --dry-run: 2 submitted again\n")
    ran = run("rerun", "all", "--yes")
    assert (ran.status, ran.out, ran.err) == (0, "3\n4\n", "tq: 2 submitted again\n")
    assert entries(made, 3) == [b"a", b"b", b"c"]
    assert run("rerun", "n", "1", "-q", "--dry-run") == (0, "", "")
    assert made.store.get(tables.JOB, (5, 0)) is None


def test_rerun_of_one_job_by_its_name_asks_nothing(run: Run, made: House) -> None:
    assert run("rerun", "n") == (0, "2\n", "tq: 1 submitted again\n")
    assert run("rerun", "@failed") == (0, "", "tq: nothing to rerun\n")


def test_rerun_takes_whole_jobs(run: Run, made: House) -> None:
    ran = run("rerun", "1.2")
    assert (ran.status, ran.out) == (2, "")
    assert "makes a whole job" in ran.err
    assert run("rerun", "77").status == 1


def test_nothing_is_submitted_again_if_one_of_several_is_not_found(run: Run, made: House, server: FakeServer) -> None:
    ran = run("rerun", "77", "1", "nobody")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("tq: 'nobody' is not an id, and no job has that name or tag\n")
    assert run("rerun", "77", "1", "78").err.startswith("tq: not found: 77, 78\n")
    assert not any(isinstance(asked, v.Submit) for asked in server.asked[-4:])


@pytest.mark.parametrize("words", [("1", "2", "3", "4", "5"), ("all", "--yes")])
def test_what_is_refused_of_several_is_named_behind_the_others(
    run: Run, made: House, server: FakeServer, words: tuple[str, ...]
) -> None:
    for queue in ("a", "full", "damaged", "full"):
        run("submit", "--queue", queue, "--", "true")

    def submit(asked: v.Submit) -> v.Answer:
        if asked.queue == "full":
            raise TooManyLanes("there is no room for its queue")
        if asked.queue == "damaged":
            raise StoreDamaged("it stands where the store is damaged")
        return made.do(asked)

    server.says[v.Submit] = submit
    ran = run("rerun", *words)
    assert (ran.status, ran.out) == (75, "6\n7\n")
    said = "tq: 3, 5: there is no room for its queue; 4: it stands where the store is damaged\n"
    assert ran.err == ("tq: 2 submitted again\n" if words[0] == "all" else "") + said


def test_a_refusal_that_is_of_all_ends_it(run: Run, made: House, server: FakeServer) -> None:
    run("submit", "--", "true")

    def refuse(_: v.Submit) -> v.Answer:
        raise NotAllowed("a read token may not do this")

    server.says[v.Submit] = refuse
    assert run("rerun", "1", "2") == (4, "", "tq: a read token may not do this\n")


def test_like_keeps_everything_that_is_not_said(run: Run, made: House, server: FakeServer) -> None:
    assert run("submit", "--like", "1", "--env", "B=3", "--priority", "-5", "--", "cat", "{1}") == (0, "2\n", "")
    sent = server.asked[-1]
    now = loads(sent.body, Body)
    assert (now.argv, now.cwd, now.environment) == ((b"cat", b"{1}"), b"/", {"A": b"1", "B": b"3"})
    assert (now.time_limit_ms, now.kill_after_ms, now.columns) == (5_000, 1_000, 1)
    assert (sent.name, sent.tags, sent.queue, sent.priority, sent.demand.cpus_milli) == ("n", ("t",), "q", -5, 2_000)
    assert (sent.size, sent.throttle, sent.max_fails, sent.entries_of) == (3, 2, 3, "1")
    assert entries(made, 2) == [b"a", b"b", b"c"]


def test_like_takes_new_inputs_instead_of_the_old(run: Run, made: House, server: FakeServer) -> None:
    assert run("submit", "--like", "1", "--", "cat", "{2}", ":::", "x", "y", ":::", "z") == (0, "2\n", "")
    assert entries(made, 2) == [b"x\0z", b"y\0z"]
    assert run("submit", "--like", "1", "--array", "5-9", "--", "true") == (0, "3\n", "")
    sent = server.asked[-1]
    assert (sent.size, sent.array_first, sent.entries_of, loads(sent.body, Body).columns) == (5, 5, "", 0)
    assert run("submit", "--like", "1", "--array", "%1") == (0, "4\n", "")
    assert (server.asked[-1].throttle, server.asked[-1].size) == (1, 3)
    assert "nothing stands for {2}" in run("submit", "--like", "1", "--", "cat", "{2}").err


def test_like_keeps_a_shell_line_as_the_shell_reads_it(run: Run, house: House, server: FakeServer) -> None:
    run("submit", "--shell", "--", "echo {}", ":::", "a")
    run("submit", "--like", "last", "--name", "again")
    assert (body(server).argv, body(server).is_shell) == ((b"/bin/sh", b"-c", b"echo {}"), True)


@pytest.mark.parametrize("size", [0, 10, 200_000])
def test_like_keeps_the_input_unless_there_is_another(
    run: Run, house: House, server: FakeServer, give_input: Give, size: int
) -> None:
    give_input(b"x" * size)
    run("submit", "--stdin", "--", "wc")
    assert run("submit", "--like", "1") == (0, "2\n", "")
    first, second = (house.store.get(tables.JOB, (number, 0)) for number in (1, 2))
    assert first is not None
    assert second is not None
    assert (second.stdin, loads(second.body, Body).stdin) == (first.stdin, loads(first.body, Body).stdin)
    give_input(b"new")
    assert run("submit", "--like", "1", "--stdin") == (0, "3\n", "")
    assert (server.asked[-1].stdin_of, body(server).stdin) == ("", b"new")
