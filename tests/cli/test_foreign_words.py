"""Who comes from Slurm, Pueue, task-spooler or any shell is told what is here for what there was there."""

import re

import pytest

from tests.cli.conftest import Run
from tests.cli.fake import FakeServer
from tq.cli import root
from tq.cli.frame import foreign_words, grammar
from tq.cli.root import WORDS

ENTRIES = {" ".join(entry.path): entry for entry in grammar.entries(root.group())}


def options_of(path: str) -> set[str]:
    """Return every option of a verb, as it is typed."""
    return {name for option in ENTRIES[path].options for name in option.names} | {"-h", "--help"}


def test_every_word_from_elsewhere_leads_to_a_verb_and_is_none_itself() -> None:
    for word, here in foreign_words.VERBS.items():
        assert word not in WORDS
        if not here:
            continue  # bare `tq`
        first, *rest = here.split()
        assert first in WORDS or here in options_of("tq"), word
        path = " ".join(["tq", first, *rest[:1]])
        if rest and not rest[0].startswith("-"):
            assert path in ENTRIES, word


@pytest.mark.parametrize(
    "path", ["tq", "tq submit", "tq run", "tq ls", "tq logs", "tq cancel", "tq wait", "tq up", "tq set", "tq forget"]
)
def test_an_option_from_elsewhere_is_none_here_and_its_hint_names_one_that_is(path: str) -> None:
    found = foreign_words._OPTIONS[path]
    assert found
    assert not set(found) & options_of(path)
    for name, hint in found.items():
        called = set(re.findall(r"--[a-z]+(?:-[a-z]+)*", hint))
        assert "`tq " in hint or called <= options_of(path), name


def test_what_a_hint_names_is_there() -> None:
    known = {name for path in ENTRIES for name in options_of(path)}
    hints = {hint for found in foreign_words._OPTIONS.values() for hint in found.values()}
    for hint in hints:
        assert set(re.findall(r"--[a-z][a-z-]+", hint)) <= known, hint
        assert all(f"tq {verb}" in ENTRIES for verb in re.findall(r"`(?:watch )?tq ([a-z]+)", hint)), hint


@pytest.mark.parametrize(
    "words, hint",
    [
        (["sinfo"], "did you mean `tq workers`?"),
        (["status"], "did you mean `tq`?"),
        (["srun", "hostname"], "did you mean `tq run`?"),
        (["follow", "3"], "did you mean `tq logs -f`?"),
        (["version"], "did you mean `tq --version`?"),
        (["submit", "-J", "x", "ls"], "it is called --name"),
        (["cron", "-l"], foreign_words._NO_SCHEDULES),
        (["cancel", "--all"], "it is a word like an id: `tq cancel all`"),
        (["ls", "42", "--sort", "time"], foreign_words._SORTED),
        (["set", "42", "--retries", "5"], foreign_words._ANEW),
        (["submit", "-n4", "ls"], foreign_words._TASKS),
        (["submit", "-0", "--each-line", "-", "--", "ls"], foreign_words._NULLS),
        (["submit", "--mem", "4G", "ls"], foreign_words._NO_DEMANDS),
        (["run", "--stashed", "ls"], "`tq submit` has it: --hold"),
        (["run", "--time", "5", "ls"], "it is called --time-limit, as in 90, 5m, 1h30m"),
        (["ls", "--all"], "all jobs are listed, newest first; -n 0 has no bound"),
        (["cancel", "-9", "1"], "it is called --signal KILL"),
        (["-V"], "it is called --version"),
    ],
)
def test_it_is_said_what_stands_for_it(run: Run, server: FakeServer, words: list[str], hint: str) -> None:
    ran = run(*words)
    assert (ran.status, ran.out, server.asked) == (2, "", [])
    assert ran.err.endswith(f"\nhint: {hint}\n")


@pytest.mark.parametrize(
    "words", [(), ("submit",), ("queue",), ("queue", "set")], ids=lambda words: " ".join(words) or "alone"
)
def test_help_as_a_verb_is_the_option(run: Run, words: tuple[str, ...]) -> None:
    ran = run("help", *words)
    assert ran == run(*words, "--help")
    assert (ran.status, ran.err) == (0, "")


def test_help_for_nothing_that_there_is_is_refused(run: Run) -> None:
    assert run("help", "nosuch") == (2, "", "tq: no such verb: nosuch\nhint: see `tq --help`\n")


def test_the_list_of_verbs_cuts_no_sentence(run: Run) -> None:
    for words in (["--help"], ["queue", "--help"], ["store", "--help"]):
        text = run(*words).out
        assert "..." not in text.partition("\nCommands:\n")[2]
        assert max(map(len, text.splitlines())) <= 80
