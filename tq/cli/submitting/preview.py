"""What `submit --dry-run` prints: the request as it would be sent, and the first commands that it makes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tq.cli.frame.context import Context
    from tq.core import vocabulary as v
    from tq.wire.body import Body

FIRST: Final = 3  # tasks that are shown as they would run


def show(
    context: "Context", command: "v.Submit", stdin_bytes: int, hint: str, entries: "Sequence[bytes] | None"
) -> None:
    """Print what would be submitted, and say that nothing was.

    `stdin_bytes` are those that would go first; `entries` are the first of its tasks, None without inputs.
    """
    from signal import SIGTERM, Signals

    from tq.cli.showing import output, present
    from tq.cli.submitting import function_call
    from tq.client.sansio import documents
    from tq.wire import codec
    from tq.wire.body import Body

    body = codec.loads(command.body, Body)
    tasks = _first_tasks(command, body, entries)
    plan = {
        "id": None,
        "command": [documents.text(word) for word in body.argv],
        "function": body.function or None,
        "arguments": function_call.shown(body.arguments) if body.function else None,
        "cwd": documents.text(body.cwd),
        "environment": {name: documents.text(value) for name, value in sorted(body.environment.items())},
        "name": command.name,
        "tags": list(command.tags),
        "queue": command.queue,
        "priority": command.priority,
        "cpus": command.demand.cpus_milli / 1_000,
        "tasks": command.size,
        "throttle": command.throttle or None,
        "max_fails": command.max_fails if command.max_fails >= 0 else None,
        "hold": command.hold or None,
        "time_limit_s": body.time_limit_ms / 1_000 or None,
        "kill_after_s": body.kill_after_ms / 1_000,
        "stop_signal": Signals(body.stop_signal).name.removeprefix("SIG") if body.stop_signal != SIGTERM else None,
        "stdout": documents.text(body.stdout) or None,
        "stderr": documents.text(body.stderr) or None,
        "tmpdir": body.has_tmpdir or None,
        "if_cut": "stop" if body.stops_when_cut else "run",
        "stdin_bytes": len(body.stdin) + stdin_bytes,
        "first_tasks": tasks or None,
    }
    if hint:
        context.talk(hint)
    pairs = [(present.label(key), shown) for key, value in plan.items() if (shown := _text(key, value))]
    pairs += [(f"task {task['number']}", _line(task, body)) for task in tasks]
    if command.size > len(tasks) > 0:
        pairs.append(("", f"and {command.size - len(tasks)} more"))
    output.print_one(context, plan, pairs)
    context.talk("tq: nothing was submitted (--dry-run)")


def _first_tasks(command: "v.Submit", body: "Body", entries: "Sequence[bytes] | None") -> list[dict[str, Any]]:
    """Return the first tasks of an array: the number of each, its entry, its command with that in its places."""
    from tq.cli.showing import present
    from tq.client.sansio import documents

    if not command.is_array or command.entries_of:  # those of another job are on the server
        return []
    argv = [documents.text(word) for word in body.argv]
    tasks: list[dict[str, Any]] = []
    for position in range(min(FIRST, command.size)):
        number = command.array_first + position * command.array_step
        entry = _columns(entries[position], body) if entries else None
        words = present.filled(argv, number, entry, is_shell=body.is_shell) if entry is not None else argv
        tasks.append({"number": number, "entry": entry, "command": words})
    return tasks


def _line(task: dict[str, Any], body: "Body") -> str:
    """Return a task as a shell would run it."""
    from tq.cli.showing import present
    from tq.client.sansio import documents

    template = {"command": [documents.text(word) for word in body.argv], "is_shell": body.is_shell}
    shown = template | {"id": f".{task['number']}", "function": body.function, "entry": task["entry"]}
    if task["entry"] is not None:
        return present.what(shown)
    if body.function:
        return present.what(shown | {"entry": [str(task["number"])]})
    return f"TQ_MEMBER={task['number']} {present.what(shown)}"


def _columns(entry: bytes, body: "Body") -> list[str]:
    from tq.cli.showing import output
    from tq.client.sansio import documents
    from tq.wire import plain

    if body.has_plain_entries:
        value = plain.loads(entry)
        return [value if isinstance(value, str) else output.json_text(value)]
    return [documents.text(column) for column in entry.split(b"\0")]


def _text(key: str, value: object) -> str:
    from tq.cli.showing import output, present

    if value is None or key == "first_tasks":
        return ""
    return output.json_text(value) if key == "arguments" else present.value_text(key, value)
