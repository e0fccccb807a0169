"""The program as a process: what it imports, its signals, its streams, a terminal."""

import errno
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.cli.fake import FakeServer
from tq.cli import root
from tq.cli.frame import memory
from tq.core import vocabulary as v
from tq.wire.body import Body
from tq.wire.codec import loads

TQ = [sys.executable, "-m", "tq"]
# What a simple verb must not load: each costs more than a simple verb has (typer brings what it brings).
HEAVY = ("trio", "rich", "rocksdict", "asyncio", "cryptography", "logging", "click", "pydantic", "dataclasses")


@contextmanager
def started(*words: str, **more: object) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [*TQ, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def task(server: FakeServer) -> FakeServer:
    server.says[v.Submit] = lambda _: v.Submitted("42")
    server.says[v.List] = lambda _: v.Page(tuple({"id": str(number), "state": "queued"} for number in range(50)))
    server.says[v.Status] = lambda _: v.Document({"tasks": {"queued": 50, "dead": 0}})
    server.says[v.DeadLetters] = lambda _: v.Page(({"id": "43.7"},))
    server.says[v.Queues] = lambda _: v.Page(({"id": "builds"}, {"id": "default"}, {"id": "$(touch evil)"}))
    return server


@pytest.mark.parametrize("missing", ["typer", "msgspec"])
def test_a_library_that_is_missing_is_a_sentence(task: FakeServer, missing: str) -> None:
    program = f"import sys; sys.modules[{missing!r}] = None; from tq.cli.app import main; main()"
    ran = subprocess.run([sys.executable, "-c", program, "ls"], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (78, "")
    assert ran.stderr.startswith("tq: tq is not installed as a whole: ")
    assert missing in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("words", [["ls"], ["run", "true"]])
def test_too_little_address_space_is_said_so(task: FakeServer, words: list[str]) -> None:
    program = (  # the loader's words, where TLS found no room: how much there is at that moment is nobody's to say
        "import os, resource, sys, tq.cli.frame.memory\n"
        "from tq.cli.app import main\n"
        "class Narrow:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == '_ssl':\n"
        "            taken = int(open('/proc/self/statm').read().split()[0]) * os.sysconf('SC_PAGE_SIZE')\n"
        "            resource.setrlimit(resource.RLIMIT_AS, (taken + 20_000_000,) * 2)\n"
        "            raise ImportError('libssl.so.3: failed to map segment from shared object')\n"
        "sys.meta_path.insert(0, Narrow())\n"
        "main()\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (78, "")
    assert "KiB of address space here (ulimit -v), and needs more\nhint: raise it: ulimit -v unlimited" in ran.stderr
    assert ran.stderr.startswith("tq: tq may use only ")


def test_a_library_that_no_limit_keeps_away_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def group() -> None:
        raise ImportError("libssl.so.3: failed to map segment from shared object")  # as where programs are noexec

    monkeypatch.setattr(root, "group", group)
    for limit_kib, said in ((0, "tq is not installed as a whole"), (30_000, "only 30000 KiB of address space")):
        monkeypatch.setattr(memory, "_limit_kib", lambda limit_kib=limit_kib: limit_kib)
        ran = run("ls")
        assert (ran.status, said in ran.err) == (78, True)


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory")])
def test_memory_that_the_machine_has_not_is_said(run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def group() -> None:
        raise error

    monkeypatch.setattr(root, "group", group)
    monkeypatch.setattr(memory, "_limit_kib", lambda: 0)
    ran = run("ls")
    assert (ran.status, ran.err.splitlines()[0]) == (78, "tq: there is not enough memory for tq")


@pytest.mark.parametrize(
    "words", [["--version"], ["submit", "true"], ["ls"], ["wait", "42"], ["logs", "42"], ["show", "42"]]
)
def test_a_simple_verb_loads_nothing_heavy(task: FakeServer, words: list[str]) -> None:
    task.says[v.Wait] = lambda _: v.Waited(True, (v.Outcome("42", "succeeded", ended=1, succeeded=1),))
    task.says[v.Logs] = lambda _: v.LogsEnd(1, (0, 0), "succeeded")
    task.says[v.Get] = lambda _: v.Document({"id": "42"})
    program = (
        "import sys; from tq.cli import app; status = app.run(sys.argv[1:]); "
        f"sys.stderr.write(' '.join(m for m in {HEAVY!r} if m in sys.modules)); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, check=False, stdin=subprocess.DEVNULL
    )
    assert (done.returncode, done.stderr.decode()) == (0, "")


@pytest.mark.parametrize("words", [["ls"], [], ["--help"], ["submit", "-h"], ["queue", "-h"], ["queue", "ls", "-h"]])
def test_a_reader_that_goes_away_ends_it_quietly(task: FakeServer, words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run([*TQ, *words], stdout=writer, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    "words",
    [["ls"], ["ls", "-n", "0", "-o", "json"], ["logs", "42"], ["run", "-q", "true"], ["--version"], ["show", "42"]],
)
def test_a_full_disk_under_stdout_is_said_with_its_name(task: FakeServer, words: list[str]) -> None:
    task.says[v.List] = lambda _: v.Page(tuple({"id": str(number), "state": "queued"} for number in range(900)))
    task.says[v.Logs] = lambda _: [v.Chunk(1, 0, b"x" * 100_000, 1), v.LogsEnd(1, (100_000, 0), "succeeded")]
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = subprocess.run([*TQ, *words], stdout=full, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (74, b"tq: cannot write to stdout: No space left on device\n")


SUBMITTED = ("job 42 is submitted, but its id is not printed", "tq show 42")
MADE = ("is made, but it is not printed", "tq token revoke ")
ONCE = [
    *((words, *SUBMITTED) for words in ("submit true", "submit -o json true", "submit --wait true", "submit -q true")),
    *((f"token create --role read {more}", *MADE) for more in ("", "-o json", "-q")),
    *((f"join {more}", *MADE) for more in ("", "-o json", "-q")),
]


@pytest.mark.parametrize("words, said, hint", ONCE)
@pytest.mark.parametrize(
    "to, why",
    [
        (">/dev/full", "cannot write to stdout: No space left on device"),
        (">&-", "cannot write to stdout: it is closed"),
        ("<&- >&-", "cannot write to stdout: it is closed"),
        ("", "nobody reads stdout any more"),
    ],
)
def test_what_exists_once_and_cannot_be_printed_is_named_on_stderr(
    task: FakeServer, to: str, why: str, words: str, said: str, hint: str
) -> None:
    task.says[v.CreateToken] = lambda _: v.Done("x")
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            f"{' '.join(TQ)} {words} {to}", shell=True, stdout=writer, stderr=subprocess.PIPE, text=True, check=False
        )
    finally:
        os.close(writer)
    error, hinted = done.stderr.splitlines()
    assert (done.returncode, error.startswith("tq: "), error.endswith(f"{said}: {why}")) == (74, True, True), error
    assert hinted.startswith("hint: ")
    assert hint in hinted
    if said is MADE[0]:
        made = next(command.id for command in task.asked if isinstance(command, v.CreateToken))
        assert error.startswith(f"tq: token {made} is made")
        assert hinted.endswith(f"tq token revoke {made}")


@pytest.mark.parametrize("to", [">/dev/full", ""])
def test_a_job_that_is_followed_no_more_is_named(task: FakeServer, to: str) -> None:
    task.says[v.Logs] = lambda _: [v.Chunk(1, 0, b"out\n", 1), v.LogsEnd(1, (4, 0), "running")]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command = f"{' '.join(TQ)} run true {to}"
        done = subprocess.run(command, shell=True, stdout=writer, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writer)
    assert done.returncode == (74 if to else 141)
    assert done.stderr.startswith(b"tq: detached; 42 is not cancelled. To cancel it: tq cancel 42.")


@pytest.mark.parametrize("closed, out", [("<&-", b"out\n"), (">&-", b""), ("<&- >&- 2>&-", b"")])
def test_a_closed_stream_is_an_empty_one(task: FakeServer, closed: str, out: bytes) -> None:
    task.says[v.Logs] = lambda _: [v.Chunk(1, 0, b"out\n", 1), v.LogsEnd(1, (0, 0), "succeeded")]
    task.says[v.Wait] = lambda _: v.Waited(True, (v.Outcome("42", "succeeded", ended=1, succeeded=1),))
    done = subprocess.run(f"{' '.join(TQ)} run true {closed}", shell=True, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, out, b"")
    assert loads(task.asked[0].body, Body).stdin == b""


def test_an_open_pipe_as_stdin_is_waited_for_and_said(task: FakeServer) -> None:
    task.says[v.Logs] = lambda _: v.LogsEnd(1, (0, 0), "succeeded")
    task.says[v.Wait] = lambda _: v.Waited(True, (v.Outcome("42", "succeeded", ended=1, succeeded=1),))
    with subprocess.Popen([*TQ, "run", "cat"], stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        said = process.stderr.readline()
        assert said.startswith(b"tq: waiting for the end of standard input")
        assert task.asked == []
        process.stdin.close()
        assert process.wait(20) == 0


@pytest.mark.parametrize("words", [["wait", "last"], ["logs", "-f", "42"], ["run", "--", "sleep", "9"]])
def test_ctrl_c_detaches_and_says_how_to_cancel(task: FakeServer, words: list[str]) -> None:
    begun = v.Chunk(1, 0, b"begun\n", 1)
    task.says[v.Logs] = lambda _: mute(task, begun)
    task.says[v.Wait] = lambda _: mute(task, v.Waited(False, (v.Outcome("42", "running"),)))
    with started(*words) as process:
        task.waits_for(v.Wait if words[0] == "wait" else v.Logs)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert (b"tq cancel 0\n" if "last" in words else b"tq cancel 42") in err  # the newest job is 0
    assert b"Traceback" not in err


def mute(server: FakeServer, answer: v.Answer) -> list[v.Answer]:
    server.is_mute = True
    return [answer]


def on_terminal(*words: str) -> str:
    """Run tq with a terminal as its stdout and stderr; return what it shows."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        [*TQ, *words], stdin=slave, stdout=slave, stderr=slave, env={**os.environ, "TERM": "xterm"}
    ) as process:
        os.close(slave)
        shown = b""
        while True:
            try:
                piece = os.read(master, 1 << 16)
            except OSError:
                break
            if not piece:
                break
            shown += piece
        process.wait()
    os.close(master)
    return shown.decode().replace("\r\n", "\n")


def test_output_on_a_terminal_is_escaped_unless_raw(task: FakeServer) -> None:
    task.says[v.Logs] = lambda _: [v.Chunk(1, 0, b"\x1b[31mred\xff\n", 1), v.LogsEnd(1, (0, 0), "succeeded")]
    assert on_terminal("logs", "42") == "\\x1b[31mred\\xff\n"
    task.says[v.Logs] = lambda _: [v.Chunk(1, 0, b"\x1b[31mred\n", 1), v.LogsEnd(1, (0, 0), "succeeded")]
    assert on_terminal("logs", "--raw", "42") == "\x1b[31mred\n"


def test_nothing_of_a_setting_is_cut_on_a_narrow_terminal(task: FakeServer, place: Path) -> None:
    shown = on_terminal("config", "--color", "never", "--url", "tq://" + "x" * 90)
    assert "\nurl              tq://" + "x" * 90 + "\n                 from --url\n" in shown
    assert "…" not in shown


def test_a_table_on_a_terminal_is_coloured_and_cut_to_its_width(task: FakeServer) -> None:
    task.says[v.List] = lambda _: v.Page(({"id": "1", "state": "dead", "command": ["x" * 500]},))
    shown = on_terminal("ls")
    assert "\x1b[31mdead\x1b[0m" in shown
    assert "…" in shown
    assert "x" * 400 not in shown
    assert "\x1b" not in on_terminal("ls", "--color", "never")
    assert shown.endswith("tq: tasks: 50 queued\n")


def test_errors_of_others_are_escaped_on_a_terminal(task: FakeServer) -> None:
    from tq.errors import TaskNotFound

    def refuse(_: v.List) -> v.Page:
        raise TaskNotFound("no \x1b]0;x\x07 here")

    task.says[v.List] = refuse
    assert on_terminal("ls") == "tq: no \\x1b]0;x\\x07 here\n"


def test_json_on_a_terminal_is_the_same_json(task: FakeServer) -> None:
    import json

    task.says[v.List] = lambda _: v.Page(({"id": "1", "name": "\x1b\x9b\u202e"},))
    shown = on_terminal("ls", "-o", "json")
    assert json.loads(shown)["items"][0]["name"] == "\x1b\x9b\u202e"
    assert not set(shown) & {"\x1b", "\x9b", "\u202e"}


@pytest.mark.parametrize("shell, check", [("bash", ["bash", "-n"]), ("zsh", ["zsh", "-n"]), ("fish", ["fish", "-n"])])
def test_a_completion_script_is_one_that_its_shell_reads(shell: str, check: list[str], tmp_path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    path = tmp_path / "script"
    path.write_bytes(subprocess.run([*TQ, "completion", shell], capture_output=True, check=True).stdout)
    assert subprocess.run([*check, path], check=False).returncode == 0


def installed(shell: str, tmp_path: Path) -> Path:
    """Return the completion script of a shell, with a program `tq` beside it; skip where there is no such shell."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = tmp_path / f"tq.{shell}"
    script.write_bytes(subprocess.run([*TQ, "completion", shell], capture_output=True, check=True).stdout)
    (tmp_path / "tq").write_text(f'#!/bin/sh\nexec {" ".join(TQ)} "$@"\n')
    (tmp_path / "tq").chmod(0o755)
    return script


def says(shell: list[str], program: str, tmp_path: Path) -> list[str]:
    environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    return subprocess.run([*shell, program], capture_output=True, check=True, text=True, env=environ).stdout.split()


def test_zsh_completes_live_ids_and_queues(task: FakeServer, tmp_path: Path) -> None:
    script = installed("zsh", tmp_path)

    def complete(*words: str) -> list[str]:
        quoted = " ".join(f"'{word}'" for word in ("tq", *words))
        setting = f'compadd() {{ print -r -- "$@" }}; compdef() {{ : }}; . {script}; '
        return says(["zsh", "-f", "-c"], f"{setting} words=({quoted}); CURRENT={len(words) + 1}; _tq", tmp_path)

    assert complete("show", "") == ["--", "last", *map(str, range(50))]
    assert complete("queue", "pause", "") == ["--", "builds", "default", "touchevil"]
    assert complete("queue", "") == ["--", "ls", "set", "pause", "resume"]


def test_fish_completes_live_ids_and_queues(task: FakeServer, tmp_path: Path) -> None:
    script = installed("fish", tmp_path)

    def complete(line: str) -> list[str]:
        return says(["fish", "-c"], f"source {script}; complete -C '{line}'", tmp_path)

    assert complete("tq show 4") == ["4", *map(str, range(40, 50))]
    assert complete("tq queue pause b") == ["builds"]
    assert "cat" in complete("tq run --name n -- ca")
    assert set(complete("tq submit -- tq queue pause b")) == {"builds"}
    assert complete("tq queue pause ") == ["builds", "default", "touchevil"]
    assert complete("tq -o json token rev")[0] == "revoke"
    # A word of the line that is, or is a part of, another verb is not a verb: nobody is asked for workers.
    assert complete("tq ls --name drain --state hel")[0] == "held"
    assert {type(asked) for asked in task.asked} == {v.List, v.Queues}


def test_bash_completes_verbs_options_and_live_ids(task: FakeServer, tmp_path: Path) -> None:
    script = installed("bash", tmp_path)

    def complete(*words: str) -> list[str]:
        quoted = " ".join(f"'{word}'" for word in ("tq", *words))
        setting = f". {script}; COMP_WORDS=({quoted}); COMP_CWORD={len(words)}"
        return says(["bash", "-c"], setting + '; _tq; printf "%s\\n" "${COMPREPLY[@]}"', tmp_path)

    assert complete("sub") == ["submit"]
    assert complete("submit", "--pri") == ["--priority"]
    assert complete("token", "re") == ["revoke"]
    assert complete("ls", "-o", "js") == ["json", "jsonl"]
    assert complete("show", "4") == ["4", *map(str, range(40, 50))]
    assert complete("submit", "--", "--pri") == complete("submit", "--name", "n", "--", "x", "--pri") == []
    assert "cat" in complete("run", "--name", "n", "--", "ca")
    assert complete("-o", "json", "--url", "x", "token", "re") == ["revoke"]
    assert complete("ls", "--output", "=") == ["table", "json", "jsonl", "id"]
    assert complete("ls", "--output", "=", "jsonl") == ["jsonl"]
    assert complete("wait", "--for", "r") == ["running"]
    assert complete("submit", "--if-cut", "") == ["run", "stop"]
    assert complete("submit", "--priority", "") == complete("submit", "--each-line", "") == complete("backup", "") == []
    assert complete("completion", "") == ["bash", "zsh", "fish"]
    assert complete("dlq", "retry", "4") == ["43.7"]
    assert complete("logs", "--stdout", "la") == ["last"]
    assert complete("cancel", "4") == ["4", *map(str, range(40, 50))]
    assert complete("ls", "--state", "hel") == ["held"]
    assert complete("submit", "--queue", "b") == ["builds"]
    assert complete("queue", "pause", "b") == ["builds"]
    assert complete("queue", "pa") == ["pause"]
    assert not (tmp_path / "evil").exists()
    task.close()
    assert complete("show", "4") == []
