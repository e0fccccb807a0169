"""What `submit --dry-run` prints: the request as it would be sent."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tq.cli.context import Context
    from tq.core import vocabulary as v


def show(context: "Context", command: "v.Submit", stdin_bytes: int, hint: str) -> None:
    """Print what would be submitted, and say that nothing was. `stdin_bytes` are those that would go first."""
    from signal import SIGTERM, Signals

    from tq.cli import called, output, present
    from tq.client import documents
    from tq.wire import codec
    from tq.wire.body import Body

    body = codec.loads(command.body, Body)
    plan = {
        "id": None,
        "command": [documents.text(word) for word in body.argv],
        "function": body.function or None,
        "arguments": called.shown(body.arguments) if body.function else None,
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
    }
    if hint:
        context.talk(hint)
    pairs = ((present.label(key), _text(key, value)) for key, value in plan.items() if value is not None)
    output.print_one(context, plan, ((name, shown) for name, shown in pairs if shown))
    context.talk("tq: nothing was submitted (--dry-run)")


def _text(key: str, value: object) -> str:
    from tq.cli import output, present

    return output.json_text(value) if key == "arguments" else present.value_text(key, value)
