"""What a shell would have read and nobody reads here gets a hint, and is submitted all the same."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.cli.fake import FakeServer
from tq.core import vocabulary as v


@pytest.fixture(autouse=True)
def accepts(server: FakeServer) -> None:
    server.says[v.Submit] = lambda _: v.Submitted("42")


@pytest.fixture
def script(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script in the directory where tq is called; PATH has one program, `tool`."""
    (place / "bin").mkdir()
    tool = place / "bin/tool"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(place / "bin"))
    path = place / "job.sh"
    path.write_text("#!/bin/sh\n")
    return path


@pytest.mark.parametrize(
    "words, hint",
    [
        (["job.sh", "1"], "programs are looked for in PATH; for the file that is here write ./job.sh"),
        (["cd", "/tmp"], "cd is a word of the shell; add --shell, or write sh -c '…'"),
        (["for", "i", "in"], "for is a word of the shell; add --shell, or write sh -c '…'"),
        (["A=1", "tool"], "no shell reads A=1; set it with --env A=1, or add --shell"),
        (["tool", "in/$TQ_MEMBER.tif"], "no shell reads $TQ_MEMBER; add --shell, or write sh -c '…'"),
        (["tool", "${TQ_JOB}"], "no shell reads ${TQ_JOB; add --shell, or write sh -c '…'"),
        (["tool", "&&", "tool"], "no shell reads &&; add --shell, or write sh -c '…'"),
        (["./job.sh", "&&", "tool"], "no shell reads &&; add --shell, or write sh -c '…'"),
        (["tool", "|", "tool"], "no shell reads |; add --shell, or write sh -c '…'"),
        (["tool | tool"], "the command is one word with spaces; leave out the quotes, or add --shell to let a shell"),
    ],
)
def test_a_word_for_a_shell_gets_a_hint_and_is_submitted(
    run: Run, server: FakeServer, script: Path, words: list[str], hint: str
) -> None:
    ran = run("submit", "--", *words)
    assert (ran.status, ran.out) == (0, "42\n")
    assert ran.err.startswith(f"hint: {hint}")
    assert len(ran.err.splitlines()) == 1
    assert run("submit", "-q", "--", *words).err == ""


def test_a_program_of_an_active_environment_gets_a_hint_unless_path_goes_with_it(
    run: Run, script: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hint = f"hint: a worker looks in its own PATH, not in {place}: add --env PATH, or write {place}/bin/tool\n"
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        monkeypatch.delenv("VIRTUAL_ENV", raising=False)
        monkeypatch.setenv(variable, str(place))
        assert run("submit", "--", "tool", "x").err == hint
        for told in (["--env", "PATH"], ["--env=PATH=/bin"], ["--env-all"], ["--shell"], ["-q"]):
            assert run("submit", *told, "--", "tool", "x").err == "", told
        assert run("submit", "--", str(place / "bin/tool")).err == ""
    for elsewhere in (str(place / "b"), sys.prefix, ""):  # tq's own has been active where a worker was started, too
        monkeypatch.setenv("CONDA_PREFIX", elsewhere)
        assert run("submit", "--", "tool", "x").err == ""


@pytest.mark.parametrize("verb", ["submit", "run"])
def test_an_option_behind_the_command_gets_a_hint_unless_dashes_say_what_is_meant(
    run: Run, server: FakeServer, script: Path, give_input: Callable[[bytes], None], verb: str
) -> None:
    give_input(b"")
    server.says[v.Logs] = lambda _: v.LogsEnd(1, (0, 0), "succeeded")
    server.says[v.Wait] = lambda _: v.Waited(True, (v.Outcome("42", "succeeded", succeeded=1, ended=1),))
    said = " is a word of this command; one for tq stands before it, and -- says that none is\n"
    for word in ("--wait", "--retries=3"):
        assert run(verb, "tool", "x", word).err == f"hint: {word.partition('=')[0]}{said}"
        assert run(verb, "--", "tool", "x", word).err == ""
    assert run(verb, "tool", "--name", "-v").err == ""
    assert run(verb, "--", "--name", "x").err == "hint: --name is not a program; options of tq stand before the --\n"


LINES = "a file has an entry on each line: `tq submit --each-line FILE -- COMMAND {}`"


@pytest.mark.parametrize(
    "words, hint",
    [
        (["submit", "--", "echo", "{}", "::::", "list"], f":::: is a word of this command; {LINES}"),
        (["submit", "--", "echo", "{}", ":::+", "a"], f":::+ is a word of this command; {LINES}"),
        (
            ["run", "--no-stdin", "--", "echo", ":::", "a"],
            "::: is a word of this command; `tq submit --follow` has lists",
        ),
        (
            ["submit", "--array", "1-2", "--", "echo", "{#}"],
            "nothing stands for {#} without inputs: the task's number is TQ_MEMBER, which a shell reads (--shell)",
        ),
        (
            ["submit", "--array", "001-100", "--", "echo"],
            "TQ_MEMBER has no zeros in front; a shell adds them, as in $(printf %03d $TQ_MEMBER)",
        ),
    ],
)
def test_a_word_of_gnu_parallel_gets_a_hint(run: Run, server: FakeServer, words: list[str], hint: str) -> None:
    server.says[v.Logs] = lambda _: v.LogsEnd(1, (0, 0), "succeeded")
    server.says[v.Wait] = lambda _: v.Waited(True, (v.Outcome("42", "succeeded", "ended", succeeded=1, ended=1),))
    ran = run(*words)
    assert (ran.status, ran.err) == (0, f"hint: {hint}\n")


@pytest.mark.parametrize("foreign", ["{.}", "{/}", "{//}", "{/.}", "{%}", "{1.}", "{2//}"])
def test_a_place_of_gnu_parallel_gets_a_hint(run: Run, server: FakeServer, foreign: str) -> None:
    ran = run("submit", "--dry-run", "--", "convert", "{}", f"{foreign}.png", ":::", "a.jpg")
    assert ran.status == 0
    assert ran.err.startswith(f"hint: nothing stands for {foreign}, only for {{}}, ")


@pytest.mark.parametrize("word", [":::+", "::::", "::::+"])
def test_lists_as_only_gnu_parallel_has_them_are_no_items(run: Run, server: FakeServer, word: str) -> None:
    ran = run("submit", "--", "echo", "{}", ":::", "a", "b", word, "c")
    assert (ran.status, ran.out, server.asked) == (2, "", [])
    assert ran.err == f"tq: there are no lists with {word}, only with ::: (all their combinations)\nhint: {LINES}\n"


@pytest.mark.parametrize(
    "words",
    [
        ["./job.sh"],
        ["tool", "job.sh"],
        ["tool", "a=b", "$HOME", "a|b", ";", ">"],
        ["nosuch"],
        ["bin"],
        ["sh", "-c", "echo $TQ_MEMBER && cd /"],
        ["/bin/bash", "-c", "echo $TQ_MEMBER", "|"],
        ["env", "A=1", "sh", "-c", "echo ${TQ_JOB}"],
        ["tool", "5", "bash", "-c", "echo $TQ_MEMBER"],
        ["--shell", "--", "cd /tmp && echo $TQ_MEMBER"],
        ["--shell", "--", "A=1", "tool"],
    ],
)
def test_what_can_be_meant_so_gets_none(run: Run, script: Path, words: list[str]) -> None:
    assert run("submit", *([] if "--" in words else ["--"]), *words) == (0, "42\n", "")


def test_a_program_of_the_name_of_a_shells_word_or_of_a_file_here_is_a_program(
    run: Run, script: Path, place: Path
) -> None:
    for name in ("export", "job.sh"):
        (place / "bin" / name).symlink_to("tool")
        assert run("submit", "--", name) == (0, "42\n", "")


def test_the_file_is_looked_for_where_it_will_run(run: Run, script: Path, place: Path) -> None:
    (place / "there").mkdir()
    assert run("submit", "--cwd", "there", "--", "job.sh") == (0, "42\n", "")
    (place / "there/other.sh").touch()
    assert "write ./other.sh" in run("submit", "--cwd", "there", "--", "other.sh").err
