"""`tq dlq`: what is asked of the server, and what is said."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.cli.fake import FakeServer
from tq.core import vocabulary as v
from tq.errors import StoreDamaged

LETTER: dict[str, Any] = {
    "id": "43.7",
    "name": "nightly",
    "queue": "builds",
    "cause": "exit",
    "code": 3,
    "attempt": 4,
    "round": 1,
    "failures": 4,
    "losses": 0,
    "host": "rack-7",
    "ended_ms": 1_700_000_000_000,
    "command": ["make", "\x1b[31m"],
}
DEAD = v.Where(states=("dead",), is_letter=True)


def test_letters_are_a_table_and_versioned_json(run: Run, server: FakeServer) -> None:
    server.says[v.DeadLetters] = lambda _: v.Page((LETTER,))
    head, row = run("dlq", "ls").out.splitlines()
    assert head.split() == ["ID", "CAUSE", "CODE", "FAILED", "LOST", "QUEUE", "NAME", "AGE", "HOST", "COMMAND"]
    assert row.split()[:7] == ["43.7", "exit", "3", "4", "-", "builds", "nightly"]
    assert "\x1b" not in row
    server.says[v.DeadLetters] = lambda _: v.Page((LETTER | {"function": "shop:total"},))
    assert run("dlq", "ls").out.splitlines()[1].split()[-1] == "shop:total"
    out = json.loads(run("dlq", "ls", "-o", "json").out)
    assert (out["v"], out["next"], out["items"][0]["id"], out["items"][0]["exit_code"]) == (1, None, "43.7", 3)
    assert run("dlq", "ls", "-q").out == "43.7\n"


@pytest.mark.parametrize(
    "fields, shown",
    [
        ({"command": ["sh", "-c", "{2} {#}", "x{}"], "entry": ["a", "b c"]}, "sh -c 'b c 7' 'xa b c'"),
        (
            {"command": ["/bin/sh", "-c", "cat {}"], "entry": ["b;c"], "is_shell": True},
            """/bin/sh -c 'cat '"'"'b;c'"'"''""",
        ),
        ({"command": ["./read"], "entry": ["a", "b"]}, "TQ_ENTRY='a b' ./read"),
        ({"command": ["ls", "{}"]}, "ls '{}'"),
        ({"command": [], "function": "m:f", "entry": ["x y"]}, "m:f 'x y'"),
    ],
)
def test_what_is_shown_of_a_task_with_an_entry_is_what_it_runs(
    run: Run, server: FakeServer, fields: dict[str, Any], shown: str
) -> None:
    server.says[v.DeadLetters] = lambda _: v.Page((LETTER | fields,))
    assert run("dlq", "ls").out.splitlines()[1].partition("rack-7  ")[2] == shown
    assert json.loads(run("dlq", "ls", "-o", "json").out)["items"][0]["command"] == fields["command"]


def test_a_list_goes_on_page_by_page_and_says_when_there_is_more(run: Run, server: FakeServer) -> None:
    pages = {"": v.Page((LETTER,), "1.2.3.4"), "1.2.3.4": v.Page((LETTER | {"id": "44"},), "9.9.9.9")}
    server.says[v.DeadLetters] = lambda command: pages[command.page]
    ran = run("dlq", "ls", "--queue", "builds", "--cause", "exit", "-n", "2")
    assert [line.split()[0] for line in ran.out.splitlines()] == ["ID", "43.7", "44"]
    assert ran.err == "tq: there are more; see them with -n 4 or -n 0\n"
    assert server.asked[0].where == v.Where(queue="builds", cause="exit")
    assert run("dlq", "ls", "-n", "-1").status == 2


@pytest.mark.parametrize("verb, kind", [("retry", v.Retry), ("purge", v.Purge)])
def test_only_dead_letters_are_acted_on(run: Run, server: FakeServer, verb: str, kind: Any) -> None:
    server.says[v.DeadLetters] = lambda _: v.Page((LETTER,))
    server.says[kind] = lambda _: v.Acted(0)
    assert run("dlq", verb, "43").err == f"tq: nothing to {verb}\n"
    server.says[kind] = lambda _: v.Acted(2)
    assert run("dlq", verb, "43", "44.1-5").status == 0
    assert server.asked[-1] == kind(("43", "44.1-5"), DEAD)
    run("dlq", verb, "--all")
    assert server.asked[-1] == kind((), DEAD)
    run("dlq", verb, "--cause", "lost", "--queue", "q", "--dry-run")
    assert server.asked[-1] == kind((), v.Where(("dead",), "q", "", "", "lost", is_letter=True), dry_run=True)


def test_of_ids_with_a_filter_only_the_dead_letters_that_match(run: Run, server: FakeServer) -> None:
    server.says[v.Retry] = lambda _: v.Acted(1)
    assert run("dlq", "retry", "43", "44.1-5", "--cause", "oom").status == 0
    assert server.asked == [v.Retry(("43", "44.1-5"), v.Where(("dead",), cause="oom", is_letter=True))]


def test_what_is_confirmed_is_how_many_dead_letters_match(run: Run, server: FakeServer) -> None:
    found = {"lost": v.Page((LETTER, LETTER | {"id": "44.8"})), "oom": v.Page((LETTER,)), "exit": v.Page(())}
    server.says[v.DeadLetters] = lambda command: found[command.where.cause]
    server.says[v.Retry] = lambda _: v.Acted(1)
    ran = run("dlq", "retry", "--cause", "lost")
    assert (ran.status, ran.err.splitlines()[0]) == (
        2, "tq: `tq dlq retry` would touch 2 dead letters; say so with --yes",
    )  # fmt: skip
    assert not [one for one in server.asked if isinstance(one, v.Retry)]
    assert run("dlq", "retry", "--cause", "oom").status == run("dlq", "retry", "--cause", "exit").status == 0


@pytest.mark.parametrize("verb, kind", [("retry", v.Retry), ("purge", v.Purge)])
def test_a_name_of_one_job_is_not_confirmed_however_many_letters_it_has(
    run: Run, server: FakeServer, verb: str, kind: Any
) -> None:
    server.says[v.List] = lambda asked: v.Page(({"id": "43"},) if asked.name == "nightly" else ())
    server.says[v.DeadLetters] = lambda _: v.Page((LETTER, LETTER | {"id": "43.8"}))
    server.says[kind] = lambda _: v.Acted(2)
    assert run("dlq", verb, "nightly").status == 0
    assert server.asked[-1] == kind((), v.Where(name="nightly", is_letter=True))


@pytest.mark.parametrize("words", [[], ["--all", "43"], ["--all", "--queue", "q"]])
def test_what_is_meant_must_be_clear(run: Run, server: FakeServer, words: list[str]) -> None:
    for verb in ("retry", "purge"):
        ran = run("dlq", verb, *words)
        assert ran.status == 2
        assert "hint: " in ran.err
    assert not [one for one in server.asked if isinstance(one, (v.Retry, v.Purge))]


def test_show_is_for_dead_letters(run: Run, server: FakeServer) -> None:
    server.says[v.Logs] = lambda _: [v.Chunk(2, 0, b"no such file\n"), v.LogsEnd(4, (0, 13), "dead")]
    server.says[v.Get] = lambda _: v.Document(LETTER | {"state": "dead"})
    assert "no such file" in run("dlq", "show", "43.7").out
    for more in ({"state": "succeeded"}, {"state": "dead", "purged": True}):
        server.says[v.Get] = lambda _, more=more: v.Document(LETTER | more)
        ran = run("dlq", "show", "43.7")
        assert (ran.status, ran.out) == (1, "")
        assert "is not a dead letter" in ran.err


def test_show_of_an_array_says_which_of_its_tasks_are_dead_and_what_they_wrote_last(
    run: Run, server: FakeServer
) -> None:
    array = {"id": "43", "is_array": True, "size": 9, "state": "running", "counts": {"dead": 7, "running": 2}}
    server.says[v.Get] = lambda _: v.Document(array)
    server.says[v.List] = lambda asked: v.Page(() if asked.states != ("dead",) else (LETTER | {"entry": ["a b"]},))
    server.says[v.Logs] = lambda _: [v.Chunk(2, 0, b"one\ntwo\nthree\n\x1bfour\n"), v.LogsEnd(4, (0, 13), "dead")]
    out = run("dlq", "show", "43").out
    assert out.endswith(
        "failed  43.7 'a b'  exit 3\n          two\n          three\n          \\x1bfour\n"
        "        and 6 more: tq ls 43 --state failed\n"
    )
    server.says[v.Get] = lambda _: v.Document(array | {"counts": {"succeeded": 9}})
    assert run("dlq", "show", "43").status == 1


@pytest.mark.parametrize("words", [("dlq", "ls"), ("ls",), ("ls", "43")])
def test_a_list_has_what_stands_around_damage_and_says_so(run: Run, server: FakeServer, words: tuple[str, ...]) -> None:
    pages = {"": v.Page((), "7", ("50", "49")), "7": v.Page(({"id": "43"},), "", ("44", "42"))}
    server.says[v.List] = server.says[v.DeadLetters] = damaged_but(pages)
    said = "tq: the server's store is damaged where these stand: 50, 49, 44 and 1 more\n"
    hint = "hint: its log says more; on its machine, with the server stopped: tq store check\n"

    assert run(*words, "-q") == (78, "43\n", said + hint)
    table = run(*words)
    assert (table.status, len(table.out.splitlines()), table.err) == (78, 2, said + hint)
    ran = run(*words, "-o", "json")
    out = json.loads(ran.out)
    assert ([item["id"] for item in out["items"]], out["unread"]) == (["43"], ["50", "49", "44", "42"])
    assert (ran.status, ran.err) == (78, said + hint)

    pages[""] = v.Page((), "7")
    pages["7"] = v.Page(({"id": "43"},))
    assert "unread" not in json.loads(run(*words, "-o", "json").out)


def damaged_but(pages: dict[str, v.Page]) -> Callable[[v.List], v.Page]:
    """Return what a server says whose pages are damaged, for who does not ask around that."""

    def say(asked: v.List) -> v.Page:
        if not asked.around:
            raise StoreDamaged("what this is about stands where the server's store is damaged")
        return pages[asked.page]

    return say
