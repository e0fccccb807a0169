"""`tq workers`, `drain` and `undrain`; the options of `tq worker`, refused before any server is looked for."""

import json
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.cli.fake import FakeServer
from tq.core import vocabulary as v
from tq.errors import TaskNotFound

WORKER = {"id": "w00ff", "state": "up", "host": "rack", "pid": 7, "slots": 8, "slots_used": 3, "cpus_milli": 8_000,
          "held": 4, "queues": [], "level": "group", "draining": False, "missed_beats": 0, "troubles": 0,
          "stuck": 0}  # fmt: skip


def shows(server: FakeServer, *lists: list[dict[str, Any]]) -> None:
    """Let the server answer with these lists, one after the other, the last for ever."""
    left = list(lists)
    server.says[v.Workers] = lambda _: v.Page(tuple(left.pop(0) if len(left) > 1 else left[0]))


def test_workers(run: Run, server: FakeServer) -> None:
    shows(server, [WORKER])
    assert run("workers").out == (
        "ID     STATE  HOST  PID  SLOTS  HELD  CPUS  CONTAINMENT  QUEUES\n"
        "w00ff  up     rack  7    3/8    4     8     group        all\n"
    )
    assert json.loads(run("workers", "-o", "json").out)["items"][0]["id"] == "w00ff"


def paged(server: FakeServer, workers: list[dict[str, Any]], size: int = 100) -> None:
    """Let the server answer with these workers, so many on a page, whatever is asked for."""

    def says(command: v.Workers) -> v.Page:
        first = int(command.page or 0)
        rest = str(first + size) if first + size < len(workers) else ""
        return v.Page(tuple(workers[first : first + size]), rest)

    server.says[v.Workers] = says


def test_all_workers_are_shown_however_many_pages_they_fill(run: Run, server: FakeServer) -> None:
    paged(server, [WORKER | {"id": f"w{number}"} for number in range(2_000)])
    assert run("workers", "-o", "id").out.split() == [f"w{number}" for number in range(2_000)]
    rows = run("workers").out.splitlines()
    assert (len(rows), rows[0].split()[0], rows[-1].split()[0]) == (2_001, "ID", "w1999")
    shown = json.loads(run("workers", "-o", "json").out)
    assert (len(shown["items"]), shown["next"]) == (2_000, None)


def test_drain_waits_for_a_worker_on_the_last_page(run: Run, server: FakeServer) -> None:
    server.says[v.Drain] = lambda _: v.Done("w00ff")
    paged(server, [WORKER | {"id": f"w{number}"} for number in range(300)] + [WORKER])
    ran = run("drain", "w00", "--wait")
    assert (ran.status, "somebody has let it go on" in ran.err) == (1, True)  # it was seen: gone it would be empty


@pytest.mark.parametrize(
    "fields, word",
    [
        ({"state": "suspect", "missed_beats": 2}, "suspect (2)"),
        ({"state": "suspect", "missed_beats": 0}, "suspect"),
        ({"state": "draining", "draining": True}, "draining"),
        ({"state": "quarantined", "troubles": 6}, "quarantined (6)"),
        ({"state": "degraded", "stuck": 1}, "degraded (1)"),
    ],
)
def test_a_state_is_shown_with_its_number(run: Run, server: FakeServer, fields: dict[str, Any], word: str) -> None:
    shows(server, [WORKER | fields])
    assert f"w00ff  {word}  rack" in run("workers").out
    shown = json.loads(run("workers", "-o", "json").out)["items"][0]
    assert {key: shown[key] for key in fields} == fields


def test_labels_are_shown_where_there_are_any_and_versions_where_they_differ(run: Run, server: FakeServer) -> None:
    workers = [WORKER | {"software": "2.0"}, WORKER | {"id": "w01", "software": "2.0", "labels": ["room=b", "ssd"]}]
    shows(server, workers)
    rows = run("workers").out.splitlines()
    assert [row.split()[8:] for row in rows] == [["QUEUES", "LABELS"], ["all"], ["all", "room=b,ssd"]]
    workers[0]["software"] = "1.9"
    assert [row.split()[-1] for row in run("workers").out.splitlines()] == ["VERSION", "1.9", "2.0"]


def test_what_keeps_a_worker_from_starting_anything_is_shown(run: Run, server: FakeServer) -> None:
    shows(server, [WORKER, WORKER | {"id": "w01", "state": "quarantined", "troubles": 5, "trouble": "no space left"}])
    rows = run("workers").out.splitlines()
    assert [row.split("  ")[-1].strip() for row in rows] == ["TROUBLE", "all", "no space left"]


@pytest.mark.parametrize(
    "words, shown",
    [
        (["--state", "suspect"], ["w02"]),
        (["--label", "room=a"], ["w01", "w03"]),
        (["--label", "room=a", "--label", "ssd"], ["w03"]),
        (["--queue", "gpu"], ["w01", "w03"]),
        (["--queue", "gpu", "--state", "suspect"], []),
    ],
)
def test_workers_are_found_by_what_they_are(run: Run, server: FakeServer, words: list[str], shown: list[str]) -> None:
    paged(
        server,
        [
            WORKER | {"id": "w01", "labels": ["room=a"]},
            WORKER | {"id": "w02", "state": "suspect", "queues": ["q"]},
            WORKER | {"id": "w03", "labels": ["ssd", "room=a"], "queues": ["q", "gpu"]},
        ],
        size=1,
    )
    assert run("workers", *words, "-q") == (0, "".join(f"{one}\n" for one in shown), "")
    _, out, err = run("workers", *words)
    assert [row.split()[0] for row in out.splitlines()] == (["ID", *shown] if shown else [])
    assert err == ("" if shown else "tq: no workers like that\n")


def test_no_worker_is_said_and_how_to_start_one(run: Run, server: FakeServer) -> None:
    shows(server, [])
    hint = "hint: start one with `tq worker`, or server and worker at once with `tq up`\n"
    assert run("workers") == (0, "", f"tq: no workers\n{hint}")


def test_a_state_that_no_worker_has_is_refused(run: Run, server: FakeServer) -> None:
    ran = run("workers", "--state", "running")
    assert (ran.status, ran.out, server.asked) == (2, "", [])
    assert "up, suspect, draining, degraded, quarantined" in ran.err


def test_of_several_those_that_are_found_are_drained_and_the_others_named(run: Run, server: FakeServer) -> None:
    def drain(command: v.Drain) -> v.Done:
        if command.worker == "rack-9":
            raise TaskNotFound("no worker 'rack-9' is known", hint="tq workers")
        return v.Done(command.worker)

    server.says[v.Drain] = drain
    shows(server, [])
    ran = run("drain", "w01", "rack-9", "w02", "--wait", "-q")
    assert (ran.status, ran.out) == (1, "w01\nw02\n")
    assert ran.err == "tq: no worker 'rack-9' is known\nhint: tq workers\n"
    ran = run("undrain", "rack-9", "w02")
    assert (ran.status, "w02 goes on" in ran.err, "no worker 'rack-9'" in ran.err) == (1, True, True)


def test_drain_and_undrain(run: Run, server: FakeServer) -> None:
    server.says[v.Drain] = lambda _: v.Done("w00ff")
    assert run("drain", "w00").status == 0
    assert json.loads(run("undrain", "rack", "-o", "json").out) == {"v": 1, "id": "w00ff", "draining": False}
    assert server.asked == [v.Drain("w00"), v.Drain("rack", on=False)]


def test_a_deadline_is_sent_in_milliseconds(run: Run, server: FakeServer) -> None:
    server.says[v.Drain] = lambda _: v.Done("w00ff")
    assert run("drain", "w00", "--deadline", "1m30s").status == 0
    assert run("drain", "w00", "--deadline", "0").status == 0
    assert server.asked == [v.Drain("w00", deadline_ms=90_000), v.Drain("w00", deadline_ms=0)]
    assert run("drain", "w00", "--deadline", "soon").status == 2
    assert len(server.asked) == 2


def test_wait_returns_once_nothing_is_left_there(run: Run, server: FakeServer) -> None:
    server.says[v.Drain] = lambda _: v.Done("w00ff")
    draining = WORKER | {"draining": True, "state": "draining"}
    shows(server, [draining], [draining | {"state": "suspect", "draining": False}], [draining | {"held": 0}])
    ran = run("drain", "w00", "--wait", "-o", "json")
    assert (ran.status, json.loads(ran.out)) == (0, {"v": 1, "id": "w00ff", "draining": True, "held": 0})
    assert [type(one) for one in server.asked] == [v.Drain, v.Workers, v.Workers, v.Workers]


def test_a_worker_that_is_gone_is_empty(run: Run, server: FakeServer) -> None:
    server.says[v.Drain] = lambda _: v.Done("w00ff")
    shows(server, [WORKER | {"draining": True}], [])
    ran = run("drain", "w00", "--wait")
    assert (ran.status, ran.err.splitlines()[-1]) == (0, "tq: w00ff is empty")


def test_waiting_ends_when_somebody_lets_the_worker_go_on(run: Run, server: FakeServer) -> None:
    server.says[v.Drain] = lambda _: v.Done("w00ff")
    shows(server, [WORKER])
    ran = run("drain", "w00", "--wait")
    assert ran.status == 1
    assert "w00ff is not empty: somebody has let it go on" in ran.err


def test_a_worker_that_nobody_knows_is_an_error_with_a_hint(run: Run, server: FakeServer) -> None:
    def refuse(_: v.Drain) -> v.Done:
        raise TaskNotFound("no worker 'w99' is known", hint="tq workers")

    server.says[v.Drain] = refuse
    assert run("drain", "w99") == (1, "", "tq: no worker 'w99' is known\nhint: tq workers\n")


@pytest.mark.parametrize(
    "words, says",
    [
        (["--cpus", "0"], "nothing to offer"),
        (["--mem", "0"], "nothing to offer"),
        (["--cpus", "many"], "is not a number of CPUs"),
        (["--slots", "-1"], "out of range"),
        (["--slots", "99999"], "out of range"),
        (["--label", "two words"], "not a label"),
        (["--label", "zone="], "not a label"),
        (["--queue", "a b"], "not a queue"),
        (["--queue", "q" * 129], "not a queue"),
        (["--label", "l" * 129], "not a label"),
        (["--name", "n" * 129], "not a name"),
        (["--queue", "q"] * 200 + ["--label", "l"] * 57, "offer_words_max"),
        (["--allow", "m" * 256], "not the name of a module"),
        (["--allow", "ä" * 128], "offer_word_bytes_max"),
        (["--name", "\x1b[2J"], "not a name"),
        (["--max-tasks", "0"], "tasks is none"),
        (["--idle-timeout", "0"], "longer than nothing"),
        (["--idle-timeout", "later"], "not a duration"),
        (["--drain-time", "999w"], "drain time"),
    ],
)
def test_a_worker_is_told_what_is_wrong_with_its_options(
    run: Run, server: FakeServer, words: list[str], says: str
) -> None:
    ran = run("worker", *words)
    assert (ran.status, ran.out) == (2, "")
    assert says in ran.err
    assert server.hellos == []


@pytest.mark.parametrize(
    "words", [["--slots", "99999"], ["--queue", "a b"], ["--heartbeat", "0"], ["--drain-time", "9999w"]], ids=str
)
def test_up_says_what_is_wrong_with_its_options_before_it_starts_anything(run: Run, words: list[str]) -> None:
    ran = run("up", *words)
    assert (ran.status, ran.out) == (2, "")
    assert "server |" not in ran.err
