"""The words of tq: help, versions, usage errors, the output formats that are none."""

import re

import pytest

from tests.cli.conftest import Run
from tests.cli.fake import FakeServer
from tq import __version__
from tq.cli import root
from tq.cli.frame import grammar, options
from tq.core import vocabulary as v

ENTRIES = list(grammar.entries(root.group()))


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_help_begins_with_an_example(run: Run, entry: grammar.Entry) -> None:
    for option in ("--help", "-h"):
        status, out, err = run(*entry.path[1:], option)
        assert (status, err) == (0, "")
        assert re.match(r"Examples?: (\w+=\S+ |source <\()*tq ?", out)
        assert f"\nUsage: {entry.name}" in out


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_help_is_in_the_imperative_without_a_full_stop_in_options(entry: grammar.Entry) -> None:
    assert entry.summary.endswith((".", ":")) or not entry.summary.endswith(" ")
    assert all(option.help and not option.help.endswith(".") for option in (*entry.options, *entry.arguments))


@pytest.mark.parametrize(
    "entry", [entry for entry in ENTRIES if not entry.verbs and len(entry.path) > 1], ids=lambda entry: entry.name
)
def test_the_examples_of_a_verb_parse(entry: grammar.Entry) -> None:
    known = {name for option in entry.options for name in option.names} | {"--", "-h"}
    for part in " | ".join(entry.examples).split(" | "):
        words = part.split(" -- ")[0].split()
        if f"{entry.name} " not in f"{part} ":
            continue
        assert {word.split("=")[0] for word in words if re.fullmatch(r"-{1,2}[a-z][a-z-]*", word)} <= known


NO_SCHEDULES = "there are no schedules yet: let cron, at or a systemd timer run `tq submit`"
NO_FLOWS = "there are no flows yet: `tq wait 42 && tq submit -- make` submits after the end of another"
APART = "ids stand apart, as in 5 6 7; 43.1-5 are tasks of an array"
NOTHING = "give one, or leave it out"


def test_version(run: Run) -> None:
    assert run("--version") == (0, f"tq {__version__}\n", "")


@pytest.mark.parametrize(
    "words, message, hint",
    [
        (["sumbit"], "no such verb: sumbit", "did you mean `tq submit`?"),
        (["list"], "no such verb: list", "did you mean `tq ls`?"),
        (["ps"], "no such verb: ps", "did you mean `tq ls`?"),
        (["xyzzy"], "no such verb: xyzzy", "see `tq --help`"),
        (["submit", "--naem", "x"], "no such option: --naem", "did you mean --name?"),
        (["wait", "--timout", "1"], "no such option: --timout", "did you mean --timeout?"),
        (["submit", "--cron", "0 3 * * *", "--", "true"], "no such option: --cron", NO_SCHEDULES),
        (["submit", "--after", "42", "--", "true"], "no such option: --after", NO_FLOWS),
        (["logs", "--after", "42"], "no such option: --after", "as in `tq logs 42`; see `tq logs --help`"),
        (["submit", "--wait", "--exit-code", "x", "--", "true"], "'x' is not a choice", "one of any, max, count"),
        (
            ["submit", "--exit-code", "any", "--", "true"],
            "--exit-code is of a submit that waits",
            "add --wait or --follow, or leave it out",
        ),
        (["ls", "--name"], "option '--name' requires an argument", "as in `tq ls`; see `tq ls --help`"),
        (["dlq", "retry"], "dlq retry what?", "tq dlq retry 42, or tq dlq retry --tag nightly; `tq dlq ls` lists them"),
        (["cancel"], "cancel what?", "tq cancel 42, or tq cancel --tag nightly; `tq ls` lists jobs"),
        (["token", "mint"], "no such verb 'mint'", "one of create, ls, revoke; see `tq token --help`"),
        (["token"], "missing verb", "one of create, ls, revoke; see `tq token --help`"),
        (["show"], "missing argument 'ID...'", "as in `tq show 42`; see `tq show --help`"),
        (["restore", "b.tqb", "d2"], "unexpected argument: d2", "the directory is an option: --data d2"),
        (["result", "1", "2 3", "4"], "unexpected argument: 2 3 4", "as in `tq result 42`; see `tq result --help`"),
        (
            ["ls", "-n", "x"],
            "invalid value for '-n' / '--limit': 'x' is not a whole number",
            "as in `tq ls`; see `tq ls --help`",
        ),
        (["-o", "yaml", "ls"], "'yaml' is not an output format", "one of table, json, jsonl, id"),
        (["ls", "-o", "yaml"], "'yaml' is not an output format", "one of table, json, jsonl, id"),
        (["ls", "--color", "blue"], "'blue' is not a choice for --color", "one of auto, always, never"),
        (["worker", "--url", "tq://x", "--data", "y"], "--url and --data name a server each", "give one of them"),
        (["server", "--listen", "x"], "'x' is not an address", "write HOST:PORT, as in 127.0.0.1:7878"),
        (["up", "--drain-time", "x"], "'x' is not a duration", "write seconds, or 10ms, 5m, 1h, 7d"),
        (["cancel", "--tag", "", "--state", "queued", "--yes"], "the value of --tag is empty", NOTHING),
        (["forget", "--state", "", "--yes"], "the value of --state is empty", NOTHING),
        (["submit", "--key", "", "--", "true"], "the value of --key is empty", NOTHING),
        (["submit", "--array=", "--", "true"], "the value of --array is empty", NOTHING),
        (["wait", "--timeout", "", "42"], "the value of --timeout is empty", NOTHING),
        (["--url", "", "ls"], "the value of --url is empty", NOTHING),
        (["ls", "-o", ""], "the value of --output is empty", NOTHING),
        (["ls", "-q", ""], "the value of JOB is empty", NOTHING),
        (["backup", ""], "the value of FILE is empty", NOTHING),
        (["cancel", "5,6"], "'5,6' is not an id", APART),
        (["show", "5-7"], "'5-7' is not an id", APART),
        (["worker", "--name", ""], "the value of --name is empty", NOTHING),
        (["completion", "tcsh"], "'tcsh' is not a shell that tq knows", "one of bash, zsh, fish"),
    ],
)
def test_a_usage_error_has_a_hint_and_status_2(run: Run, words: list[str], message: str, hint: str) -> None:
    status, out, err = run(*words)
    assert (status, out) == (2, "")
    said, hinted = err.rstrip("\n").split("\nhint: ")
    assert said.startswith(f"tq: {message}")
    assert hinted == hint


@pytest.mark.parametrize(
    "words",
    [["ls", "--name", "\udcff"], ["drain", "\udcff"], ["submit", "--function", "\udcff:f"],
     ["submit", "--function", "m:f", "--args", '"\udcff"'], ["queue", "pause", "\udcff"]],
)  # fmt: skip
def test_a_word_that_is_no_text_is_refused_as_such(run: Run, server: FakeServer, words: list[str]) -> None:
    ran = run(*words)
    assert (ran.status, ran.out) == (2, "")
    assert "internal error" not in ran.err
    assert "\\udcff" in ran.err
    assert server.asked == []


def test_a_word_of_a_megabyte_is_not_repeated_as_a_whole(run: Run, server: FakeServer) -> None:
    ran = run("submit", "--array", "x" * 100_000, "--", "true")
    assert (ran.status, len(ran.err) < 5_000) == (2, True)
    assert "is not an array range\nhint: write FIRST-LAST" in ran.err


def test_a_bug_is_a_sentence_and_status_70(run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.says[v.List] = lambda _: v.Page(({"id": "1", "state": "queued", "size": "many"},))
    ran = run("ls")
    assert ran.status == 70
    assert ran.err.startswith("tq: internal error: ValueError")
    assert "Traceback" not in ran.err
    monkeypatch.setenv("TQ_DEBUG", "1")
    assert "Traceback" in run("ls").err


def test_colour_follows_option_then_no_color_then_force_color(
    run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.says[v.List] = lambda _: v.Page(({"id": "1", "state": "dead"},))

    def is_colored(*words: str) -> bool:
        return "\x1b[31mdead\x1b[0m" in run("ls", *words).out

    assert not is_colored()
    assert is_colored("--color", "always")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert is_colored()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not is_colored()
    assert is_colored("--color", "always")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_verb_and_option(run: Run, shell: str) -> None:
    out = run("completion", shell).out
    for entry in ENTRIES:
        assert entry.path[-1] in out
        for option in entry.options:
            assert all(name.lstrip("-") in out for name in option.names)


def test_help_groups_the_verbs(run: Run) -> None:
    out = run("--help").out
    titles = ["Submit and follow", "Look", "Act", "Operate"]
    assert titles == list(root.GROUPS)
    assert sorted(out.index(f"\n{title}:\n") for title in titles) == [out.index(f"\n{title}:\n") for title in titles]
    assert all(f"\n  {word} " in out for word in root.WORDS)


@pytest.mark.parametrize("verb", ["submit", "run"])
def test_help_groups_the_options_of_a_task(run: Run, verb: str) -> None:
    out = run(verb, "--help").out
    rest = out.partition("\nOptions:\n")[2].partition("\n\n")[0]
    said = {line.split()[0].rstrip(",") for line in rest.splitlines() if line.startswith("  -")}
    assert said == {"--url", "-o", "-q", "--color", "--connect-timeout", "-h"}
    assert [title for title in options.GROUPS if f"\n{title}:\n" not in out] == (
        ["Inputs and arrays"] * (verb == "run")
    )
    command = root.load(verb)
    assert all(f"  {param.opts[0]}" in out for param in command.params if param.opts[0].startswith("-"))
