"""`ls`, `show`, `workers`, bare `tq`: snapshots of what people and scripts see."""

import json
import time
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.cli.fake import FakeServer
from tq.core import vocabulary as v
from tq.errors import BadRequest, StoreDamaged, TaskNotFound

JOB: dict[str, Any] = {
    "id": "42",
    "state": "succeeded",
    "name": "nightly",
    "queue": "default",
    "tags": ["a"],
    "is_array": False,
    "size": 1,
    "submitted_ms": 1_700_000_000_000,
    "job_ended_ms": 1_700_000_001_500,
    "counts": {"succeeded": 1},
    "command": ["echo", "a b"],
}
ARRAY: dict[str, Any] = {
    "id": "43",
    "state": "running",
    "name": "",
    "queue": "builds",
    "tags": [],
    "is_array": True,
    "size": 10,
    "submitted_ms": 0,
    "job_ended_ms": 0,
    "counts": {"succeeded": 3, "dead": 1, "queued": 6},
    "command": ["make"],
}
TASK: dict[str, Any] = {
    **JOB,
    "state": "dead",
    "attempt": 2,
    "phase": "ended",
    "worker": "w00000000000000ff",
    "host": "rack-7",
    "lease": 9,
    "failures": 1,
    "losses": 1,
    "leased_ms": 1_700_000_000_100,
    "started_ms": 1_700_000_000_200,
    "ended_ms": 1_700_000_001_200,
    "run_us": 1_000_000,
    "cause": "signal",
    "code": -9,
    "usage": {"user_s": 0.5, "peak_bytes": 1048576, "stdout_bytes": 10},
    "history": [
        {"attempt": 1, "worker": "w0", "host": "rack-6", "cause": "lost", "code": 0, "started_ms": 1, "ended_ms": 2}
    ],
    "environment": {"A": "1", "B": "\x1b[31m"},
}


def test_ls_is_a_table_for_people(run: Run, server: FakeServer) -> None:
    server.says[v.List] = lambda _: v.Page((ARRAY, JOB))
    status, out, err = run("ls")
    lines = out.splitlines()
    assert (status, err) == (0, "")
    assert lines[0].split() == ["ID", "STATE", "TASKS", "QUEUE", "NAME", "AGE", "COMMAND"]
    assert lines[1].startswith("43  running    4/10 ended, 1 failed  builds   -        - ")
    assert lines[1].endswith(" make")
    assert lines[2].startswith("42  succeeded  1                     default  nightly  ")
    assert lines[2].endswith("echo 'a b'")


def test_ls_is_versioned_json_for_scripts(run: Run, server: FakeServer) -> None:
    server.says[v.List] = lambda _: v.Page((JOB,), "7")
    out = json.loads(run("ls", "-o", "json", "-n", "1").out)
    assert out == {
        "v": 1,
        "items": [
            {
                "id": "42",
                "state": "succeeded",
                "name": "nightly",
                "queue": "default",
                "tags": ["a"],
                "is_array": False,
                "size": 1,
                "submitted_at": "2023-11-14T22:13:20.000Z",
                "job_ended_at": "2023-11-14T22:13:21.500Z",
                "counts": {"succeeded": 1},
                "command": ["echo", "a b"],
            }
        ],
        "next": "7",
    }


def test_a_json_object_of_many_pages_is_printed_page_by_page(run: Run, server: FakeServer) -> None:
    pages = {"": v.Page((JOB, ARRAY), "2"), "2": v.Page((), "1"), "1": v.Page((JOB,))}
    server.says[v.List] = lambda asked: pages[asked.page]
    out = json.loads(run("ls", "-n", "0", "-o", "json").out)
    assert ([item["id"] for item in out["items"]], out["next"]) == (["42", "43", "42"], None)
    server.says[v.List] = lambda _: v.Page(())
    assert run("ls", "-o", "json").out == '{"v":1,"items":[],"next":null}\n'


def test_a_list_that_fails_at_once_prints_nothing(run: Run, server: FakeServer) -> None:
    def refuse(_: v.List) -> v.Page:
        raise BadRequest("that is not a page of this list")

    server.says[v.List] = refuse
    assert run("ls", "-o", "json") == (2, "", "tq: that is not a page of this list\n")


def test_jsonl_is_one_object_a_line(run: Run, server: FakeServer) -> None:
    server.says[v.List] = lambda _: v.Page((ARRAY, JOB))
    lines = run("-o", "jsonl", "ls").out.splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["43", "42"]
    assert all(line.startswith('{"v":1,') for line in lines)


@pytest.mark.parametrize("words", [["-q", "ls"], ["ls", "-q"], ["ls", "-o", "id"], ["-o", "id", "ls"]])
def test_ids_alone(run: Run, server: FakeServer, words: list[str]) -> None:
    server.says[v.List] = lambda _: v.Page((ARRAY, JOB))
    assert run(*words) == (0, "43\n42\n", "")


def test_ls_goes_on_over_pages_also_empty_ones(run: Run, server: FakeServer) -> None:
    pages = {"": v.Page((JOB,), "9"), "9": v.Page((), "5"), "5": v.Page((ARRAY,))}
    server.says[v.List] = lambda command: pages[command.page]
    assert run("ls", "-q", "-n", "0").out == "42\n43\n"


def test_ls_passes_its_filters_on(run: Run, server: FakeServer) -> None:
    server.says[v.List] = lambda _: v.Page(())
    states = ("--state", "running,queued", "--state", "failed")
    run("ls", *states, "--queue", "q", "--tag", "t", "--name", "n", "-n", "7")
    run("ls", "43", *states)
    assert server.asked == [
        v.List("", ("running", "queued", "failed"), "q", "t", "n", 7, ""),
        v.List("43", ("running", "queued", "failed"), limit=50),
    ]
    assert run("ls", "43", "--queue", "q").status == 2


def test_ls_of_a_job_lists_its_tasks(run: Run, server: FakeServer) -> None:
    server.says[v.List] = lambda _: v.Page(({**TASK, "id": "43.1"}, {"id": "43.2", "state": "queued", "attempt": 0}))
    assert run("ls", "43").out == (
        "ID    STATE   ATTEMPT  CAUSE   CODE      TIME  HOST\n"
        "43.1  dead    2        signal  signal 9  1s    rack-7\n"
        "43.2  queued  -        -       -         -     -\n"
    )


def test_the_time_of_a_task_is_what_it_has_run_so_far_and_nothing_where_nobody_knows(
    run: Run, server: FakeServer
) -> None:
    began_ms = round(time.time() * 1_000) - 7_200_000
    tasks: tuple[dict[str, Any], ...] = (
        {"id": "43.1", "state": "running", "attempt": 2, "started_ms": began_ms, "host": "a"},
        {"id": "43.2", "state": "running", "attempt": 1, "host": "a"},
        {"id": "43.3", "state": "queued", "attempt": 1, "started_ms": began_ms, "ended_ms": began_ms + 1, "host": "b"},
    )
    server.says[v.List] = lambda _: v.Page(tasks)
    assert [line.split()[5] for line in run("ls", "43").out.splitlines()[1:]] == ["2h", "-", "-"]


def test_what_comes_bit_by_bit_is_one_table(run: Run, server: FakeServer) -> None:
    short = {"id": "43.1", "state": "dead", "attempt": 1, "cause": "exit", "code": 3, "ended_ms": 1, "run_us": 10**6}
    pages = {"": v.Page((short,), "5"), "5": v.Page((TASK | {"id": "43.5"},), "9"), "9": v.Page(())}
    server.says[v.List] = lambda asked: pages[asked.page]
    assert run("ls", "43", "-n", "0").out == (
        "ID    STATE  ATTEMPT  CAUSE   CODE      TIME  HOST\n"
        "43.1  dead   1        exit    3         1s    -\n"
        "43.5  dead   2        signal  signal 9  1s    rack-7\n"
    )


def test_ls_of_a_job_with_inputs_shows_them(run: Run, server: FakeServer) -> None:
    queued = {"id": "43.1", "state": "queued"}
    pages = {"": v.Page((queued,), "5"), "5": v.Page((queued | {"id": "43.5", "entry": ["a b", "\x1b[m"]},))}
    server.says[v.List] = lambda asked: pages[asked.page]
    assert run("ls", "43").out == (
        "ID    STATE   ATTEMPT  CAUSE  CODE  TIME  HOST  ENTRY\n"
        "43.1  queued  -        -      -     -     -\n"
        "43.5  queued  -        -      -     -     -     'a b' '\\x1b[m'\n"
    )


def written(command: v.Logs) -> list[Any]:
    """Answer what an attempt has written."""
    errors = b"one\ntwo\n\x1b[31mthree\nfour\n"
    return [v.Chunk(1, 0, b"out\n", command.attempt), v.Chunk(2, 0, errors), v.LogsEnd(1, (4, len(errors)))]


def test_show_says_that_a_time_was_clipped(run: Run, server: FakeServer) -> None:
    usage = {"user_s": 2.0, "system_s": 0.0, "cpu_clipped": True}
    server.says[v.Get] = lambda _: v.Document({**TASK, "run_clipped": True, "usage": usage})
    server.says[v.Logs] = written

    clipped = "(clipped: the worker said a time that is not possible)"
    lines = [line for line in run("show", "42").out.splitlines() if "clipped" in line]
    assert [line.split()[0] for line in lines] == ["run", "usage"]
    assert all(line.endswith(clipped) and line.count("clipped") == 1 for line in lines)
    out = json.loads(run("show", "42", "-o", "json").out)
    assert (out["run_clipped"], out["usage"]["cpu_clipped"]) == (True, True)
    assert json.loads(run("result", "42").out)["run_clipped"] is True


def test_show_is_versioned_json(run: Run, server: FakeServer) -> None:
    server.says[v.Get] = lambda _: v.Document(TASK)
    server.says[v.Logs] = written
    out = json.loads(run("show", "42", "-o", "json").out)
    assert (out["v"], out["id"], out["state"], out["run_s"]) == (1, "42", "dead", 1.0)
    assert (out["exit_code"], out["signal"], out["started_at"]) == (None, 9, "2023-11-14T22:13:20.200Z")
    assert out["history"][0] == {
        "attempt": 1,
        "worker": "w0",
        "host": "rack-6",
        "cause": "lost",
        "exit_code": None,
        "signal": None,
        "started_at": "1970-01-01T00:00:00.001Z",
        "ended_at": "1970-01-01T00:00:00.002Z",
        "last_lines": ["two", "\x1b[31mthree", "four"],
    }
    assert out["last_lines"] == ["two", "\x1b[31mthree", "four"]
    assert [one.attempt for one in server.asked if isinstance(one, v.Logs)] == [1, 2]


def test_show_is_readable_and_harmless(run: Run, server: FakeServer) -> None:
    server.says[v.Get] = lambda _: v.Document(TASK)
    server.says[v.Logs] = written
    out = run("show", "42").out
    assert "\x1b" not in out
    words = [line.split(maxsplit=1) for line in out.splitlines()]
    assert words[:3] == [["id", "42"], ["state", "dead"], ["name", "nightly"]]
    assert ["command", "echo 'a b'"] in words
    assert ["signal", "9"] in words
    assert ["usage", "user 0.5s, peak 1.0 MiB, stdout 10 B"] in words
    assert "started      2023-11-14 22:13:20.200Z (" in out
    assert "job ended" not in out


def test_an_exit_code_of_0_is_said(run: Run, server: FakeServer) -> None:
    server.says[v.Get] = lambda _: v.Document({**TASK, "state": "succeeded", "cause": "exit", "code": 0})
    server.says[v.Logs] = written
    assert "exit code    0\n" in run("show", "42").out
    server.says[v.Get] = lambda _: v.Document({**TASK, "state": "queued", "cause": "none", "ended_ms": 0, "code": 0})
    assert "exit code" not in run("show", "42").out


def test_a_task_of_an_array_is_shown_with_its_entry_and_without_the_counts_of_its_job(
    run: Run, server: FakeServer
) -> None:
    server.says[v.Get] = lambda _: v.Document(
        {**TASK, "id": "42.2", "is_array": True, "entry": ["a b", "\x1b[31m", ""]}
    )
    server.says[v.Logs] = written
    out = run("show", "42.2").out
    assert "entry        'a b' '\\x1b[31m' ''\n" in out
    assert "command      TQ_ENTRY='a b \\x1b[31m ' " in out
    assert not {"counts", "size"} & {line.split(maxsplit=1)[0] for line in out.splitlines()}
    assert json.loads(run("show", "42.2", "-o", "json").out)["entry"] == ["a b", "\x1b[31m", ""]


def test_the_end_of_a_job_is_an_instant(run: Run, server: FakeServer) -> None:
    server.says[v.Get] = lambda _: v.Document(ARRAY | {"job_ended_ms": 1_700_000_001_500})
    server.says[v.List] = lambda _: v.Page(())
    out = run("show", "43").out
    assert "job ended  2023-11-14 22:13:21.500Z (" in out
    assert "counts     3 succeeded, 1 dead, 6 queued" in out


def test_cpus_are_shown_as_they_were_asked_for(run: Run, server: FakeServer) -> None:
    server.says[v.Get] = lambda _: v.Document(JOB | {"cpus_milli": 1_500})
    assert "cpus       1.5\n" in run("show", "42").out
    assert json.loads(run("show", "42", "-o", "json").out)["cpus_milli"] == 1_500


def test_several_are_shown_one_after_the_other(run: Run, server: FakeServer) -> None:
    server.says[v.Get] = lambda asked: v.Document(JOB | {"id": asked.id})
    one, two = run("show", "42").out, run("show", "43").out
    assert run("show", "42", "43").out == f"{one}\n{two}"
    assert [json.loads(line)["id"] for line in run("show", "42", "43", "-o", "json").out.splitlines()] == ["42", "43"]
    assert run("show", "42", "43", "-q").out == "42\n43\n"


def test_times_to_come_are_ahead(run: Run, server: FakeServer) -> None:
    due_ms = round(time.time() * 1_000) + 90_500
    waiting = {"state": "retrying", "reason": "failed 1 of 4 times, and waits for its next attempt", "due_ms": due_ms}
    server.says[v.Get] = lambda _: v.Document(JOB | waiting)
    server.says[v.Logs] = written
    out = run("show", "42").out
    assert "waits for its next attempt, in 1m 30s\n" in out
    assert "Z (in 1m 30s)\n" in next(line + "\n" for line in out.splitlines() if line.startswith("due "))
    server.says[v.Get] = lambda _: v.Document(JOB | waiting | {"due_ms": due_ms - 3_600_000})
    out = run("show", "42").out
    assert "waits for its next attempt\n" in out
    assert " ago)" in next(line for line in out.splitlines() if line.startswith("due "))


def test_a_state_is_no_id_and_the_hint_says_where_it_goes(run: Run, server: FakeServer) -> None:
    server.says[v.List] = lambda _: v.Page(())
    for verb in ("ls", "cancel", "show"):
        ran = run(verb, "failed")
        assert ran.status == 1
        assert ran.err.endswith("\nhint: a state is chosen by an option, as in `tq ls --state failed`\n")


@pytest.mark.parametrize("words", [("98", "1", "99", "2"), ("1", "98", "2", "99"), ("1", "2", "98", "99")])
def test_of_several_the_known_are_shown_and_the_others_named(
    run: Run, server: FakeServer, words: tuple[str, ...]
) -> None:
    def answer(asked: v.Get) -> v.Document:
        if len(asked.id) > 1:
            raise TaskNotFound(f"there is no job {asked.id}", hint="tq ls")
        return v.Document({"id": asked.id})

    server.says[v.Get] = answer
    assert run("show", *words) == (1, "id  1\n\nid  2\n", "tq: not found: 98, 99\nhint: tq ls\n")
    assert run("show", *words, "-q").out == "1\n2\n"


def test_of_several_what_cannot_be_read_is_named_behind_the_others(run: Run, server: FakeServer) -> None:
    def answer(asked: v.Get) -> v.Document:
        if asked.id == "2":
            raise StoreDamaged("it stands where the store is damaged", hint="tq store check")
        if asked.id == "9":
            raise TaskNotFound("there is no job 9")
        return v.Document({"id": asked.id})

    server.says[v.Get] = answer
    said = "tq: 2: it stands where the store is damaged; not found: 9\nhint: tq store check\n"
    assert run("show", "1", "2", "9", "3", "-q") == (78, "1\n3\n", said)


def test_show_of_an_array_says_what_failed_first_and_what_runs(run: Run, server: FakeServer) -> None:
    failed = [
        {"id": f"43.{number}", "state": "dead", "attempt": 1, "cause": "exit", "code": 3, "ended_ms": 1}
        for number in (2, 5)
    ]
    lost = {"id": "43.6", "state": "dead", "attempt": 4, "cause": "lost", "code": 0, "ended_ms": 1}
    pages = {
        (("dead", "expired"), ""): v.Page((failed[0] | {"entry": ["a\n", "b" * 50]},), "4"),
        (("dead", "expired"), "4"): v.Page((failed[1], lost, lost | {"id": "43.8", "cause": "signal", "code": -11})),
        (("running",), ""): v.Page(
            ({"id": "43.7", "attempt": 1, "host": "rack-\x1b7", "state": "running", "entry": ["x"]},)
        ),
    }
    server.says[v.Get] = lambda _: v.Document(ARRAY | {"id": "43", "counts": {"dead": 9, "running": 1}})
    server.says[v.List] = lambda asked: pages[asked.states, asked.page]
    server.says[v.Logs] = written
    out = run("show", "43").out
    assert out.endswith(
        f"failed   43.2 'a\\n' {'b' * 34}…  exit 3: four\n"
        "         43.5  exit 3: four\n         43.6  lost: four\n"
        "         43.8  signal 11: four\n         and 5 more: tq ls 43 --state failed\n"
        "running  43.7 x  on rack-\\x1b7\n"
    )
    asked = len(server.asked)
    assert "failed" not in json.loads(run("show", "43", "-o", "json").out)
    assert len(server.asked) == asked + 1


def test_the_first_that_failed_are_looked_for_so_far_and_no_farther(run: Run, server: FakeServer) -> None:
    server.says[v.Get] = lambda _: v.Document(ARRAY | {"counts": {"dead": 2, "succeeded": 10**6}})
    server.says[v.List] = lambda asked: v.Page((), str(int(asked.page or 0) + 1_000))
    assert "failed   2: tq ls 43 --state failed\n" in run("show", "43").out
    assert sum(isinstance(asked, v.List) for asked in server.asked) == 4


def test_last_is_the_newest_job(run: Run, server: FakeServer) -> None:
    server.says[v.List] = lambda _: v.Page((ARRAY,))
    server.says[v.Get] = lambda _: v.Document(ARRAY)
    assert run("show", "last").status == 0
    assert server.asked[:2] == [v.List(limit=1), v.Get("43")]


@pytest.mark.parametrize("word", ["last.7", "last.1-5"])
def test_a_task_of_the_newest_job(run: Run, server: FakeServer, word: str) -> None:
    server.says[v.List] = lambda _: v.Page(({"id": "99", "state": "running"},))
    server.says[v.Cancel] = lambda _: v.Acted(1)
    assert run("cancel", word).status == 0
    assert v.Cancel((word.replace("last", "99"),)) in server.asked


@pytest.mark.parametrize("word", ["last.x", "last7", "last-7", "Last", "all.1"])
def test_what_is_not_quite_last_is_a_name(run: Run, server: FakeServer, word: str) -> None:
    server.says[v.List] = lambda asked: v.Page(() if asked.name or asked.tag else ({"id": "99"},))
    ran = run("show", word)
    assert (ran.status, ran.out) == (1, "")
    assert f"'{word}' is not an id" in ran.err


@pytest.mark.parametrize("word", ["2026-11-26", "2026-11-26-02"])
def test_a_date_is_a_name(run: Run, server: FakeServer, word: str) -> None:
    server.says[v.List] = lambda asked: v.Page(({"id": "7"},) if asked.name == word else ())
    server.says[v.Get] = lambda _: v.Document(TASK)
    server.says[v.Logs] = written
    assert run("show", word).status == 0
    assert v.Get("7") in server.asked


def test_last_of_nothing_is_not_found(run: Run, server: FakeServer) -> None:
    server.says[v.List] = lambda _: v.Page(())
    ran = run("show", "last")
    assert (ran.status, ran.out) == (1, "")
    assert "there is no job yet" in ran.err


@pytest.mark.parametrize(
    "word",
    ["", "a b", "42 ", "all", "@failed", "@x", "43.1-5", "٤", "x" * 129, "1..2", "1-2", "last.", "last.7.8", "last.7-"],
)
def test_a_malformed_id_is_refused_and_never_sent(run: Run, server: FakeServer, word: str) -> None:
    ran = run("show", "--", word)
    assert (ran.status, ran.out) == (2, "")
    assert server.asked == []


def test_a_list_of_what_failed_is_told_its_words(run: Run, server: FakeServer) -> None:
    ran = run("ls", "@failed")
    assert (ran.status, ran.out, server.asked) == (2, "", [])
    assert "tq ls --state failed" in ran.err


def test_what_is_not_there_is_refused_with_1(run: Run, server: FakeServer) -> None:
    def refuse(_: v.Get) -> v.Document:
        raise TaskNotFound("there is no job 42", hint="tq ls")

    server.says[v.Get] = refuse
    assert run("show", "42") == (1, "", "tq: there is no job 42\nhint: tq ls\n")


def test_bare_tq_is_a_short_status(run: Run, server: FakeServer) -> None:
    server.says[v.Status] = lambda _: v.Document({"tasks": {"queued": 3, "dead": 0}, "workers": 2, "slots": 8})
    assert run().out == f"server   {server.url} (admin)\nworkers  2 with 8 slots\ntasks    3 queued\n"
    assert json.loads(run("-o", "json").out)["tasks"] == {"queued": 3, "dead": 0}
    server.says[v.Status] = lambda _: v.Document({"tasks": {"succeeded": 1, "dead": 5}})
    assert "tasks    1 succeeded, 5 dead (tq dlq ls)\n" in run().out
    server.says[v.Status] = lambda _: v.Document({"tasks": {}, "workers": 2, "slots": 8, "draining": 1})
    assert "workers  2 with 8 slots, 1 draining\n" in run().out


def test_bare_tq_says_what_goes_on_in_the_background(run: Run, server: FakeServer) -> None:
    sweeps = [{"verb": "retry", "job": "17", "last": "230"}, {"verb": "hold", "job": "4", "last": "4"}]
    server.says[v.Status] = lambda _: v.Document({"tasks": {"dead": 3}, "sweeps": sweeps})
    assert run().out.endswith("background  retry: at job 17 of 230\nbackground  hold of job 4\n")
    assert json.loads(run("-o", "json").out)["sweeps"] == sweeps


def test_bare_tq_has_the_queues_of_every_page(run: Run, server: FakeServer) -> None:
    server.says[v.Status] = lambda _: v.Document({"tasks": {"queued": 3, "running": 1}})
    first, second = {"id": "a", "counts": {"queued": 3, "dead": 1}}, {"id": "b", "counts": {"running": 1}}
    server.says[v.Queues] = lambda asked: v.Page((second,)) if asked.page else v.Page((first,), "a")
    assert run().out.endswith("queue a  3 queued\nqueue b  1 running\n")
    shown = json.loads(run("-o", "json").out)["queues"]
    assert shown == {"a": {"queued": 3, "running": 0, "dead": 1}, "b": {"queued": 0, "running": 1}}


def test_bare_tq_says_that_the_disk_is_full(run: Run, server: FakeServer) -> None:
    server.says[v.Status] = lambda _: v.Document({"tasks": {"queued": 3}, "server": {"room": "critical"}})
    assert "disk     nearly full: no new work is taken, nothing starts\n" in run().out


def test_names_of_others_are_harmless_in_every_form(run: Run, server: FakeServer) -> None:
    server.says[v.List] = lambda _: v.Page(({**JOB, "command": ["\x1b]52;c;x\x07", "\u202e"]},))
    for form in ("table", "json", "jsonl", "id"):
        out = run("ls", "-o", form).out
        assert "\x1b" not in out
        assert form == "json" or "\u202e" not in out or form == "jsonl"


def test_since_stops_at_the_first_older_job(run: Run, server: FakeServer) -> None:
    now_ms = round(time.time() * 1_000)
    young, old = (
        {**JOB, "id": "9", "submitted_ms": now_ms - 1_000},
        {**JOB, "id": "8", "submitted_ms": now_ms - 7_200_000},
    )
    server.says[v.List] = lambda _: v.Page((young, old), "8")
    assert run("ls", "--since", "1h", "-q").out == "9\n"
    assert run("ls", "--since", "3h", "-q", "-n", "2").out == "9\n8\n"
    assert len(server.asked) == 2
