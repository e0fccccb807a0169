"""The options that several verbs share, each written once with its help; and those of a task, of `run` and `submit`."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Final

import typer

from tq import limits

Command = Annotated[
    list[str] | None, typer.Argument(metavar="-- COMMAND [ARGUMENT]...", help="What to run", show_default=False)
]
Name = Annotated[str, typer.Option("--name", metavar="NAME", help="A name to find it by", show_default=False)]
Tags = Annotated[
    list[str] | None, typer.Option("--tag", metavar="TAG", help="A word to find it by; repeatable", show_default=False)
]
Queue = Annotated[str, typer.Option("--queue", metavar="QUEUE", help="The queue it waits in")]
Priority = Annotated[int, typer.Option("--priority", metavar="N", help="-100 (last) to 100 (first)")]
Cwd = Annotated[
    str, typer.Option("--cwd", metavar="DIR", help="Run there, instead of in this directory", show_default=False)
]
Env = Annotated[
    list[str] | None,
    typer.Option("--env", metavar="NAME[=VALUE]", help="Set or pass on a variable; repeatable", show_default=False),
]
EnvAll = Annotated[bool, typer.Option("--env-all", help="Pass on the whole environment, but tq's own credentials")]
Shell = Annotated[bool, typer.Option("--shell", help="Let /bin/sh read the command as one line")]
TimeLimit = Annotated[
    str,
    typer.Option(
        "--time-limit", metavar="DURATION", help="Stop it after so long: 90, 10ms, 5m, 1h, 7d", show_default=False
    ),
]
KillAfter = Annotated[
    str,
    typer.Option(
        "--kill-after", metavar="DURATION", help="From TERM to KILL when it is stopped (10s)", show_default=False
    ),
]
Stdout = Annotated[
    str,
    typer.Option(
        "--stdout",
        metavar="FILE",
        help="Write it there, on the worker's host, and not to the server; %t the task, %j its job, %a its number in an"
        " array, %n the attempt",
        show_default=False,
    ),
]
Stderr = Annotated[
    str,
    typer.Option("--stderr", metavar="FILE", help="The same for stderr; it may be the same file", show_default=False),
]
StopSignal = Annotated[
    str,
    typer.Option(
        "--stop-signal", metavar="SIGNAL", help="What stops it: a name or a number (TERM)", show_default=False
    ),
]
TmpDir = Annotated[
    bool, typer.Option("--tmpdir", help="Give each attempt an empty directory, TQ_TMPDIR, that is removed after it")
]
IfCut = Annotated[
    str,
    typer.Option(
        "--if-cut",
        metavar="WHAT",
        help="When its worker hears no server for 3 beats: run (on), or stop, so that no second copy ever runs",
    ),
]
Retries = Annotated[
    int | None,
    typer.Option(
        "--retries",
        metavar="N",
        help="Try again after a failure, at most N times; else as its queue or the server says (3)",
        show_default=False,
    ),
]
CrashLimit = Annotated[
    int, typer.Option("--crash-limit", metavar="N", help="Give up once N workers were lost with it; 0 = never")
]
Backoff = Annotated[
    str,
    typer.Option(
        "--backoff",
        metavar="FIRST[..LONGEST]",
        help="How long it waits before it tries again: a random part of a bound that doubles; one value: exactly that",
    ),
]
RetryOn = Annotated[
    list[str] | None,
    typer.Option(
        "--retry-on", metavar="CODES", help="Try again after these exit codes (or signals) alone", show_default=False
    ),
]
NoRetryOn = Annotated[
    list[str] | None,
    typer.Option("--no-retry-on", metavar="CODES", help="Never try again after these", show_default=False),
]
Function = Annotated[
    str, typer.Option("--function", metavar="MODULE:NAME", help="Call this Python function instead", show_default=False)
]
Args = Annotated[
    str,
    typer.Option("--args", metavar="JSON", help="What it is called with: a list, or a map by name", show_default=False),
]
Stdin = Annotated[bool, typer.Option("--stdin", help="Store this program's input, at most 4 MiB, as the task's")]
Cpus = Annotated[str, typer.Option("--cpus", metavar="N", help="CPUs it needs, as in 2 or 0.5", show_default=False)]
Expires = Annotated[
    str,
    typer.Option(
        "--expires",
        metavar="DURATION",
        help="Valid for so long, as in 30d; then its connections end, too",
        show_default=False,
    ),
]
Ids = Annotated[
    list[str],
    typer.Argument(
        metavar="ID...",
        help="42, 43.7, 43.1-5, last, last.7, all, @failed, a name or a tag, NAME.7",
        show_default=False,
    ),
]
ONE: Final = "42, 43.7, last, last.7, a name or a tag, NAME.7"
Id = Annotated[str, typer.Argument(metavar="ID", help=ONE, show_default=False)]
States = Annotated[
    list[str] | None,
    typer.Option("--state", metavar="STATE", help="Only in this state; repeatable; failed = dead or expired"),
]
OfQueue = Annotated[str, typer.Option("--queue", metavar="QUEUE", help="Only of this queue", show_default=False)]
OfTag = Annotated[str, typer.Option("--tag", metavar="TAG", help="Only with this tag", show_default=False)]
OfName = Annotated[str, typer.Option("--name", metavar="NAME", help="Only of this name", show_default=False)]
Raw = Annotated[bool, typer.Option("--raw", help="Write the bytes as they are, on a terminal too")]
ExitCode = Annotated[
    str,
    typer.Option(
        "--exit-code", metavar="HOW", help="For several: any (0 or 1), max (an array: 0 or 1), or count of failures"
    ),
]
Key = Annotated[
    str, typer.Option("--key", metavar="KEY", help="The same key makes the same job, once", show_default=False)
]
Array = Annotated[
    str,
    typer.Option(
        "--array",
        metavar="A-B[:STEP][%N]",
        help="One task for each number, in TQ_MEMBER; %N: at most N at once (with inputs: %N alone)",
        show_default=False,
    ),
]
EachLine = Annotated[
    str,
    typer.Option("--each-line", metavar="FILE", help="One task for each line; - is standard input", show_default=False),
]
AtOnce = Annotated[
    int | None,
    typer.Option("-j", "--at-once", metavar="N", help="Run at most N of its tasks at once", show_default=False),
]
ColSep = Annotated[
    str,
    typer.Option(
        "--colsep", metavar="REGEX", help="Take each line apart where this matches: {1}, {2}…", show_default=False
    ),
]
Csv = Annotated[bool, typer.Option("--csv", help="Take each line apart as CSV: {1}, {2}…")]
FromJson = Annotated[
    str,
    typer.Option(
        "--from-json", metavar="FILE", help="One task for each item of a JSON array; - is standard input",
        show_default=False,
    ),
]  # fmt: skip
MaxFails = Annotated[
    int, typer.Option("--max-fails", metavar="N", help="Cancel the rest once more than N tasks failed; -1 = never")
]
Like = Annotated[
    str,
    typer.Option(
        "--like", metavar="ID", help="Make it as that job was, but for what is given here", show_default=False
    ),
]

# The options of `submit` and `run` as their help groups them; the others stand under "Options".
GROUPS: Final = {
    "What to run": (
        "--shell", "--cwd", "--env", "--env-all", "--stdin", "--function", "--args", "--like", "--name", "--tag",
        "--key", "--time-limit", "--kill-after", "--stop-signal", "--tmpdir",
    ),
    "Inputs and arrays": ("--array", "--at-once", "--each-line", "--colsep", "--csv", "--from-json", "--max-fails"),
    "Retries": ("--retries", "--backoff", "--retry-on", "--no-retry-on", "--crash-limit", "--if-cut"),
    "Where and when": ("--queue", "--priority", "--cpus", "--hold"),
    "Output": ("--stdout", "--stderr", "--wait", "--follow", "--exit-code", "--dry-run"),
}  # fmt: skip

_OF_TASK: Final[dict[str, tuple[Any, Any]]] = {  # in the order of the help, each with its default
    "command": (Command, None),
    "name": (Name, ""),
    "tag": (Tags, None),
    "queue": (Queue, "default"),
    "priority": (Priority, 0),
    "cwd": (Cwd, ""),
    "env": (Env, None),
    "env_all": (EnvAll, False),
    "shell": (Shell, False),
    "time_limit": (TimeLimit, ""),
    "kill_after": (KillAfter, ""),
    "stdout": (Stdout, ""),
    "stderr": (Stderr, ""),
    "stop_signal": (StopSignal, ""),
    "tmpdir": (TmpDir, False),
    "if_cut": (IfCut, "run"),
    "retries": (Retries, None),
    "crash_limit": (CrashLimit, limits.crash_limit),
    "backoff": (Backoff, "1s..5m"),
    "retry_on": (RetryOn, None),
    "no_retry_on": (NoRetryOn, None),
    "cpus": (Cpus, ""),
}


def of_task(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb a command and the options of a task, where it takes `**task`. What it has itself stays its own."""
    own = dict(inspect.signature(verb).parameters)
    ctx, task = own.pop("ctx"), own.pop("task")
    shared = (
        own.pop(name, task.replace(name=name, kind=ctx.kind, annotation=annotation, default=default))
        for name, (annotation, default) in _OF_TASK.items()
    )
    verb.__signature__ = inspect.Signature([ctx, *shared, *own.values()])  # type: ignore[attr-defined]
    return verb
