"""Documents of the server as people see them: cells and lines of tables. Pure.

What it is given, client/sansio/documents.py has made.
"""

from typing import Any, Final

ALIVE: Final = ("running", "queued", "retrying", "scheduled", "held", "blocked")
TERMINAL: Final = ("succeeded", "dead", "cancelled", "skipped", "expired")


def ago(ms: int, now_ms: int) -> str:
    """Return how long ago an instant was, for a table: `12s`, `5m`, `3h`, `2d`."""
    return seconds(max(0, now_ms - ms) / 1_000) if ms else "-"


def when(ms: int, now_ms: int) -> str:
    """Return how far off an instant is: `12s ago`, `in 1.8s`."""
    return f"in {seconds((ms - now_ms) / 1_000)}" if ms > now_ms else f"{ago(ms, now_ms)} ago"


def seconds(value: float) -> str:
    """Return a duration for a table: `0.12s`, `12s`, `5m 10s`, `3h 5m`, `2d 4h`."""
    if 0 < value < 0.1:
        return f"{value * 1_000:.3g}ms"
    if value < 10:
        return f"{value:.3g}s"
    whole = round(value)
    for size, unit, below, small in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size}{unit}" + (f" {rest}{small}" if rest else "")
    return f"{whole}s"


def size(value: int) -> str:
    """Return bytes for a table: `512 B`, `1.5 MiB`."""
    if value < 1024:
        return f"{value} B"
    amount = float(value)
    for unit in ("KiB", "MiB", "GiB"):
        amount /= 1024
        if amount < 1024:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1024:.1f} TiB"


def counted(count: int, one: str, many: str = "") -> str:
    """Return `1 task`, `2 tasks`; `many` where that is not one with an s."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def command_line(command: Any) -> str:
    """Return an argv as a shell would read it."""
    from shlex import join

    return join(str(word) for word in command) if isinstance(command, list) else ""


def what(shown: dict[str, Any]) -> str:
    """Return what a job or task runs, for a table: its function, or its command, with its entry in their places."""
    entry, command = shown.get("entry"), shown.get("command") or []
    if function := shown.get("function"):
        return " ".join(filter(None, (function, command_line(entry))))
    return command_line(command) if entry is None else _filled(shown, command, entry)


def _filled(shown: dict[str, Any], command: list[str], entry: list[str]) -> str:
    """Return a task's command as its worker makes it. One that has no places reads its entry from TQ_ENTRY."""
    from tq.wire import placeholders

    if not any(placeholders.has_any(word.encode()) for word in command):
        return f"TQ_ENTRY={command_line([' '.join(entry)])} {command_line(command)}"
    number = int(str(shown.get("id")).partition(".")[2] or 0)
    return command_line(filled(command, number, entry, is_shell=bool(shown.get("is_shell"))))


def filled(command: list[str], number: int, entry: list[str], *, is_shell: bool) -> list[str]:
    """Return a command with the entry of a task in its places."""
    from tq.wire import placeholders

    argv, columns = [word.encode() for word in command], [column.encode() for column in entry]
    words = placeholders.fill(argv, number, columns, is_shell=is_shell)
    return [word.decode(errors="replace") for word in words]


def blank(value: Any) -> str:
    """Return a cell of a table, `-` for what is not there."""
    return str(value) if value and value != "none" else "-"


def code_text(item: dict[str, Any]) -> str:
    """Return how an attempt ended, for a table: its exit code, or its signal."""
    if item.get("signal"):
        return f"signal {item['signal']}"
    return str(item["exit_code"]) if item.get("exit_code") is not None else "-"


_ZERO_SAYS: Final = ("exit_code", "max_fails", "kill_after_s")  # where 0 is no absence


def label(key: str) -> str:
    """Return what a field is called for a person: without its unit, which its value says."""
    for unit in ("_at", "_s", "_bytes", "_milli"):
        key = key.removesuffix(unit)
    return key.replace("_", " ")


def value_text(key: str, value: Any) -> str:
    """Return one value of a document for a person, "" for what is empty."""
    if value is None or (value in ("", [], {}, False, "none") and key not in _ZERO_SAYS):
        return ""
    if key in {"command", "entry"}:
        return command_line(value)
    if isinstance(value, dict):
        if key == "environment":
            return "\n".join(f"{name}={item}" for name, item in value.items())
        if value and all(isinstance(item, dict) for item in value.values()):
            return "\n".join(f"{label(name)}: {value_text(name, item)}" for name, item in value.items())
        parts = ((name, value_text(name, item)) for name, item in value.items())
        return ", ".join(f"{part} {name}" if key == "counts" else f"{label(name)} {part}"
                         for name, part in parts if part)  # fmt: skip
    if isinstance(value, list):
        return ", ".join(value_text("", item) for item in value)
    if isinstance(value, str) and key.endswith("_at"):
        return value.replace("T", " ")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if key.endswith("_s"):
            return seconds(value)
        if key.endswith("_bytes"):
            return size(int(value))
        if key.endswith("_milli"):
            return f"{value / 1_000:g}"
    return str(value) if value is not True else "yes"
