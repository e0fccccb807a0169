"""`cancel`, `hold`, `release`, `requeue`, `retry`, `set`, `forget`: what is asked of the server, and what is said."""

import json
import sys
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.cli.fake import FakeServer
from tq.cli.showing import selectors
from tq.cli.verbs import act
from tq.core import vocabulary as v
from tq.errors import AlreadyEnded, NotDone, TaskNotFound

# verb with its options, the command that is asked, what is said of (3 done, 1 stopping, 2 unchanged)
VERBS: list[tuple[list[str], Any, str]] = [
    (["cancel"], v.Cancel, "3 cancelled, 1 being stopped, 2 had ended already"),
    (["hold"], v.Hold, "3 held, 2 held already, or ended"),
    (["release"], v.Release, "3 released, 2 not held"),
    (["requeue"], v.Requeue, "3 queued again, 1 being stopped to run again, 2 not running"),
    (["retry"], v.Retry, "3 queued again, 2 not failed"),
    (["set", "--priority", "7"], v.SetPriority, "3 changed, 2 had ended already"),
    (["set", "--at-once", "7"], v.SetThrottle, "3 changed, 2 had ended already, or one task"),
    (["forget"], v.Forget, "3 forgotten, 2 not ended"),
]
REST = " so far; the rest goes on in the background, and `tq` says how far it is\n"
WORDS = [verb[0] for verb, _, _ in VERBS]


def asked(server: FakeServer, kind: type[Any] | None = None) -> list[Any]:
    """What was asked, without the looking-up."""
    return [one for one in server.asked if not isinstance(one, v.List) and (kind is None or isinstance(one, kind))]


def has_jobs(server: FakeServer, *ids: str, name: str = "", tag: str = "") -> None:
    """Let the server have jobs that a filter with this name or tag finds; with neither, every filter."""

    def answer(command: v.List) -> v.Page:
        is_found = (command.name, command.tag) == (name, tag) if name or tag else True
        items: tuple[dict[str, Any], ...] = tuple({"id": text} for text in ids) if is_found else ()
        return v.Page(items)

    server.says[v.List] = answer


@pytest.mark.parametrize("verb, kind, said", VERBS)
def test_what_became_of_what_is_said(run: Run, server: FakeServer, verb: list[str], kind: Any, said: str) -> None:
    server.says[kind] = lambda _: v.Acted(3, 1, 2)
    assert run(*verb, "42") == (0, "", f"tq: {said}\n")
    server.says[kind] = lambda _: v.Acted(5, sweeping=True)
    assert run(*verb, "42").err.endswith(REST)
    server.says[kind] = lambda _: v.Acted(0)
    assert run(*verb, "42") == (0, "", f"tq: nothing to {verb[0]}\n")
    assert run(*verb, "-q", "42") == (0, "", "")


def test_of_what_was_not_looked_at_yet_nothing_is_claimed(run: Run, server: FakeServer) -> None:
    server.says[v.Cancel] = lambda _: v.Acted(0, sweeping=True)
    assert run("cancel", "42").err == f"tq: nothing to cancel{REST}"
    rest = "nothing to cancel among the oldest jobs; it looked at the oldest jobs alone"
    said = f"tq: nothing is done; without --dry-run: {rest}\n"
    assert run("cancel", "--dry-run", "42").err == said


@pytest.mark.parametrize("verb, kind, said", VERBS)
def test_scripts_get_one_versioned_object(run: Run, server: FakeServer, verb: list[str], kind: Any, said: str) -> None:
    server.says[kind] = lambda _: v.Acted(3, 1, 2, sweeping=True)
    ran = run(*verb, "42", "--dry-run", "-o", "json")
    assert json.loads(ran.out) == {
        "v": 1, "verb": verb[0], "done": 3, "stopping": 1, "unchanged": 2, "sweeping": True, "not_found": [],
        "dry_run": True,
    }  # fmt: skip
    assert (ran.status, ran.err) == (0, "")


@pytest.mark.parametrize("verb, kind, said", VERBS)
def test_a_dry_run_is_the_servers(run: Run, server: FakeServer, verb: list[str], kind: Any, said: str) -> None:
    server.says[kind] = lambda _: v.Acted(3, sweeping=True)
    assert run(*verb, "42", "--dry-run").err.startswith("tq: nothing is done; without --dry-run: 3 ")
    assert asked(server)[0].dry_run


def test_ids_and_ranges_go_to_the_server_as_they_are(run: Run, server: FakeServer) -> None:
    server.says[v.Cancel] = lambda _: v.Acted(1)
    run("cancel", "42", "43.1-5", "42", "44.7")
    assert server.asked == [v.Cancel(("42", "43.1-5", "44.7"))]


def test_a_signal_goes_with_a_cancel(run: Run, server: FakeServer) -> None:
    server.says[v.Cancel] = lambda _: v.Acted(0, stopping=1)
    run("cancel", "--signal", "int", "42")
    assert server.asked == [v.Cancel(("42",), signal=2)]


def test_many_are_asked_in_commands_of_a_thousand(run: Run, server: FakeServer) -> None:
    server.says[v.Cancel] = lambda _: v.Acted(1)
    assert run("cancel", "43.1-600", "44.1-600", "45").err == "tq: 2 cancelled\n"
    assert server.asked == [v.Cancel(("43.1-600",)), v.Cancel(("44.1-600", "45"))]


@pytest.mark.parametrize(
    "words, where",
    [
        (["all"], v.Where()),
        (["@failed"], v.Where(("failed",))),
        (["nightly"], v.Where(name="nightly")),
        (["--state", "dead,expired", "--queue", "q", "--tag", "t", "--name", "n"],
         v.Where(("dead", "expired"), "q", "t", "n")),
    ],
)  # fmt: skip
def test_everything_else_is_a_filter_of_the_servers(
    run: Run, server: FakeServer, words: list[str], where: v.Where
) -> None:
    has_jobs(server, "1", "2")
    server.says[v.Retry] = lambda _: v.Acted(1)
    assert run("retry", *words, "--yes").status == 0
    assert asked(server) == [v.Retry((), where)]


@pytest.mark.parametrize("verb, kind, said", VERBS)
def test_ids_with_a_filter_mean_those_of_the_ids_that_match(
    run: Run, server: FakeServer, verb: list[str], kind: Any, said: str
) -> None:
    has_jobs(server, "1", name="nightly")
    server.says[kind] = lambda _: v.Acted(1)
    assert run(*verb, "43", "44.1-5", "nightly", "--state", "queued", "--tag", "t").status == 0
    ids, named = asked(server)
    assert (ids.ids, ids.where) == (("43", "44.1-5"), v.Where(("queued",), tag="t"))
    assert (named.ids, named.where) == ((), v.Where(("queued",), tag="t", name="nightly"))


def test_a_name_or_all_that_failed_with_a_filter_for_something_else_is_refused(run: Run, server: FakeServer) -> None:
    has_jobs(server, "1", name="nightly")
    for words in (["nightly", "--name", "daily"], ["@failed", "--state", "queued"]):
        ran = run("cancel", *words, "--yes")
        assert (ran.status, ran.out) == (2, "")
        assert ran.err.startswith(f"tq: {words[0]} and the filter ask for different jobs\nhint: ")
    assert asked(server) == []


def test_a_word_is_a_name_before_it_is_a_tag(run: Run, server: FakeServer) -> None:
    server.says[v.Cancel] = lambda _: v.Acted(1)
    has_jobs(server, "1", name="both")
    run("cancel", "both", "--yes")
    has_jobs(server, "1", tag="both")
    run("cancel", "both", "--yes")
    assert asked(server) == [v.Cancel((), v.Where(name="both")), v.Cancel((), v.Where(tag="both"))]


@pytest.mark.parametrize("verb, kind, said", VERBS)
def test_a_name_of_which_nothing_can_be_done_is_refused_like_an_id(
    run: Run, server: FakeServer, verb: list[str], kind: Any, said: str
) -> None:
    has_jobs(server, "1", name="nightly")
    server.says[kind] = lambda _: v.Acted(0, 0, 1)
    unchanged = said.rpartition(" 2 ")[2] or said
    for words in (["nightly"], ["nightly", "--dry-run"]):
        ran = run(*verb, *words)
        assert (ran.status, ran.out) == (1, "")
        assert ran.err.splitlines()[0] == f"tq: nothing to do: nightly: {unchanged}"
        assert ("hint: " in ran.err) is (verb[0] in {"requeue", "retry"})
    assert run(*verb, "--name", "nightly").status == 0
    server.says[kind] = lambda _: v.Acted(1)
    assert run(*verb, "nightly").status == 0


@pytest.mark.parametrize("verb, kind, other", [("requeue", v.Requeue, "retry"), ("retry", v.Retry, "requeue")])
def test_who_takes_the_wrong_verb_is_told_the_other(
    run: Run, server: FakeServer, verb: str, kind: Any, other: str
) -> None:
    def refuse(_: Any) -> v.Acted:
        raise AlreadyEnded("nothing to do: 42 does not run")

    server.says[kind] = refuse
    status, out, err = run(verb, "42")
    assert (status, out, err.splitlines()[0]) == (1, "", "tq: nothing to do: 42 does not run")
    assert f"hint: tq {verb} is for what " in err
    assert f"; tq {other} " in err


def test_all_of_nothing_is_no_failure(run: Run, server: FakeServer) -> None:
    has_jobs(server)
    server.says[v.Cancel] = lambda _: v.Acted(0)
    assert run("cancel", "all") == (0, "", "tq: nothing to cancel\n")


def test_a_word_that_is_nothing_is_not_found(run: Run, server: FakeServer) -> None:
    has_jobs(server)
    ran = run("cancel", "nobody")
    assert ran.status == 1
    assert ran.err.startswith("tq: 'nobody' is not an id, and no job has that name or tag\nhint: ")


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize(
    "words, says",
    [
        ([], " what?"),
        (["4 2"], "is not an id"),
        (["@all"], "selects nothing"),
        (["43.5-1"], "runs backwards"),
        (["43.1-99999999"], "wait_ids_max"),
        (["--nosuch"], "--nosuch"),
    ],
)
def test_wrong_use_has_a_hint_and_no_traceback(
    run: Run, server: FakeServer, word: str, words: list[str], says: str
) -> None:
    more = ["--priority", "1"] if word == "set" else []
    ran = run(word, *more, *words)
    assert (ran.status, ran.out) == (2, "")
    assert says in ran.err
    assert "\nhint: " in ran.err
    assert "Traceback" not in ran.err
    assert asked(server) == []


@pytest.mark.parametrize("priority", ["101", "-101", "x", ""])
def test_a_priority_out_of_range_is_never_sent(run: Run, server: FakeServer, priority: str) -> None:
    assert run("set", "42", "--priority", priority).status == 2
    for words in ([], ["--at-once", "-1"], ["--at-once", "x"], ["--priority", "1", "--at-once", "2"]):
        ran = run("set", "42", *words)
        assert (ran.status, "\nhint: " in ran.err) == (2, True)
    assert server.asked == []


def test_set_and_force_reach_the_server(run: Run, server: FakeServer) -> None:
    server.says[v.SetThrottle] = lambda _: v.Acted(1)
    assert run("set", "43", "--at-once", "0").status == 0
    assert server.asked.pop() == v.SetThrottle(("43",), throttle=0)
    server.says[v.SetPriority] = server.says[v.Retry] = lambda _: v.Acted(1)
    run("set", "42", "--priority", "-10")
    run("retry", "--force", "42")
    assert server.asked == [v.SetPriority(("42",), priority=-10), v.Retry(("42",), force=True)]


def test_what_is_refused_is_refused_only_if_nothing_was_done(run: Run, server: FakeServer) -> None:
    def answer(command: v.Cancel) -> v.Acted:
        if command.ids[0] == "43.1-900":
            raise AlreadyEnded("nothing to do: 43.1-900 had ended already")
        return v.Acted(2)

    server.says[v.Cancel] = answer
    assert run("cancel", "43.1-900") == (1, "", "tq: nothing to do: 43.1-900 had ended already\n")
    assert run("cancel", "43.1-900", "44.1-900") == (0, "", "tq: 2 cancelled\n")


def test_what_was_done_before_something_was_refused_is_said(run: Run, server: FakeServer) -> None:
    def answer(command: v.Cancel) -> v.Acted:
        if not command.ids:
            raise NotDone("enough goes on in the background", hint="try again later")
        return v.Acted(1)

    has_jobs(server, "1", name="nightly")
    server.says[v.Cancel] = answer
    said = "tq: enough goes on in the background\nhint: try again later\n"
    assert run("cancel", "42", "nightly") == (75, "", f"tq: 1 cancelled\n{said}")
    assert run("cancel", "nightly") == (75, "", said)


def test_what_is_not_there_is_refused_with_1(run: Run, server: FakeServer) -> None:
    def answer(_: v.Hold) -> v.Acted:
        raise TaskNotFound("there is no job 42", hint="tq ls")

    server.says[v.Hold] = answer
    assert run("hold", "42") == (1, "", "tq: there is no job 42\nhint: tq ls\n")


@pytest.mark.parametrize("verb, kind, said", VERBS)
def test_of_several_the_known_are_done_and_the_others_named(
    run: Run, server: FakeServer, verb: list[str], kind: Any, said: str
) -> None:
    has_jobs(server, "1", name="nightly")
    server.says[kind] = lambda command: v.Acted(1, unknown=("99",) if command.ids else ())
    ran = run(*verb, "42", "99", "nightly", "nobody")
    done = said.partition(",")[0].replace("3", "2")
    assert ran == (1, "", f"tq: {done}\ntq: not found: nobody, 99\nhint: {selectors._HINT}\n")
    assert [one.ids for one in asked(server)] == [("42", "99"), ()]
    ran = run(*verb, "42", "99", "-o", "json")
    assert (ran.status, json.loads(ran.out)["not_found"]) == (1, ["99"])
    assert ran.err == "tq: not found: 99\nhint: `tq ls` lists jobs\n"


def test_where_one_command_of_several_finds_nothing_the_others_count(run: Run, server: FakeServer) -> None:
    def answer(command: v.Cancel) -> v.Acted:
        if command.ids[0] == "43.1-900":
            raise TaskNotFound("there is no job 43")
        return v.Acted(2)

    server.says[v.Cancel] = answer
    ran = run("cancel", "43.1-900", "44.1-900")
    assert ran == (1, "", "tq: 2 cancelled\ntq: not found: 43.1-900\nhint: `tq ls` lists jobs\n")


def test_what_the_first_asking_has_forgotten_is_no_failure_of_the_second(run: Run, server: FakeServer) -> None:
    def answer(_: v.Forget) -> v.Acted:
        raise TaskNotFound("there is no job 42")

    server.says[v.Forget] = answer
    server.cuts = 1
    assert run("forget", "42") == (0, "", "tq: nothing to forget\n")


class TestConfirm:
    """More than one job by a filter is confirmed: by typing how many on a terminal, else by --yes."""

    @pytest.fixture(autouse=True)
    def acted(self, server: FakeServer) -> None:
        server.says[v.Cancel] = lambda _: v.Acted(1)

    @pytest.fixture
    def terminal(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        def answers(text: str) -> None:
            class Keyboard:
                def readline(self) -> str:
                    return text

            monkeypatch.setattr(act, "is_terminal", lambda _: True)
            monkeypatch.setattr(sys, "stdin", Keyboard())

        return answers

    def test_one_job_needs_none(self, run: Run, server: FakeServer) -> None:
        has_jobs(server, "1")
        assert run("cancel", "all").status == 0

    def test_a_dry_run_needs_none(self, run: Run, server: FakeServer) -> None:
        has_jobs(server, "1", "2")
        assert run("cancel", "all", "--dry-run").status == 0

    def test_without_a_terminal_it_is_refused_with_a_hint(self, run: Run, server: FakeServer) -> None:
        has_jobs(server, "1", "2")
        ran = run("cancel", "all")
        assert ran.status == 2
        said, hint = ran.err.splitlines()
        assert said == "tq: `tq cancel` would touch 2 jobs; say so with --yes"
        assert hint == "hint: look first: the same with --dry-run"
        assert asked(server) == []

    def test_only_jobs_that_it_can_touch_count(self, run: Run, server: FakeServer) -> None:
        has_jobs(server, "1", "2")
        run("cancel", "--tag", "t")
        assert server.asked[-1].states == ("running", "queued", "retrying", "scheduled", "held", "blocked")
        run("cancel", "--tag", "t", "--state", "queued")
        assert server.asked[-1].states == ("queued",)

    def test_the_right_count_goes_on(self, run: Run, server: FakeServer, terminal: Any) -> None:
        has_jobs(server, "1", "2", "3")
        terminal("3\n")
        ran = run("cancel", "all")
        assert ran.status == 0
        assert ran.err.startswith("tq: `tq cancel` would touch 3 jobs. To go on, type 3: ")
        assert asked(server) == [v.Cancel((), v.Where())]

    @pytest.mark.parametrize("text", ["y\n", "2\n", "\n", ""])
    def test_anything_else_does_nothing(self, run: Run, server: FakeServer, terminal: Any, text: str) -> None:
        has_jobs(server, "1", "2", "3")
        terminal(text)
        ran = run("cancel", "all")
        assert ran.status == 1
        assert "nothing was done" in ran.err
        assert asked(server) == []


@pytest.mark.parametrize("field", ["name", "tag"])
def test_a_task_of_a_job_is_named_by_the_job_where_that_is_one(run: Run, server: FakeServer, field: str) -> None:
    ids = {"nightly": ("43",), "both": ("45", "44"), "v1.4": ("46",)}
    server.says[v.List] = lambda asked: v.Page(tuple({"id": one} for one in ids.get(getattr(asked, field), ())))
    server.says[v.Get] = lambda asked: v.Document({"id": asked.id})
    server.says[v.Cancel] = lambda _: v.Acted(1)
    assert run("show", "nightly.7", "-q") == (0, "43.7\n", "")
    assert run("show", "v1.4", "-q") == (0, "46\n", "")
    assert run("cancel", "nightly.7", "nightly.1-5").status == 0
    assert server.asked[-1] == v.Cancel(("43.7", "43.1-5"))
    said = "tq: 'both.7': several jobs have the name or tag both\nhint: of the newest: 45.7\n"
    assert run("show", "both.7") == (1, "", said)
    ran = run("show", "weekly.7")
    assert (ran.status, ran.err.splitlines()[0]) == (1, "tq: 'weekly.7' is not an id, and no job has that name or tag")
