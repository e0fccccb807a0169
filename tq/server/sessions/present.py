"""What a reader may see of the opaque parts of a task: the document of `show`, with its body and usage opened.

The core forwards bodies and never looks inside; here, at the edge, they become text. Pure. Whoever holds a token that
may not see secrets gets neither environment nor input. Bytes that are no UTF-8 are shown with backslash escapes.
"""

import json
from collections.abc import Iterable
from typing import Any, Final

from msgspec.structs import replace

from tq.core.change.measured import cpu_us_max
from tq.core.vocabulary import Document, Page
from tq.errors import ProtocolError
from tq.wire.body import Body, Usage
from tq.wire.codec import loads
from tq.wire.plain import loads as loads_plain

list_command_bytes_max: Final = 200  # of each line of a list; its entry takes as much
shown_bytes_max: Final = 90_000  # of a command, and of an environment: bytes that are no text grow fourfold as escapes
used_max: Final = 2**53 - 1  # of time, memory and bytes that a worker says were used: what JSON has exactly
shown_entry_bytes_max: Final = 16_384  # of a task's own input, beside these in one frame


def present(document: Document, *, with_secrets: bool) -> Document:
    """Return the document of one job or task with `body`, `entry` and `usage` (raw from the core) opened."""
    value = _with_usage(document.value)
    body, entry = value.pop("body", None), value.pop("entry", None)
    if isinstance(body, bytes) and body:
        value.update(_body(body, entry, with_secrets=with_secrets))
    return Document(value)


def present_page(page: Page) -> Page:
    """Return a page of jobs or dead letters; of each body only the beginning of the command is shown."""
    return replace(page, items=tuple(_line(item) for item in page.items))


def present_tasks(page: Page) -> Page:
    """Return a page of the tasks of one job; of each the beginning of its entry is shown."""
    return replace(page, items=tuple(_line(item, is_task=True) for item in page.items))


def present_worker(item: dict[str, Any], missed_beats: int, stuck: int) -> dict[str, Any]:
    """Return a worker as people see it, with what its connection tells. What is most urgent is its state."""
    state = item["state"]
    if missed_beats > 0:
        state = "suspect"
    elif stuck and state != "draining":
        state = "degraded"
    return {**item, "state": state, "missed_beats": missed_beats, "stuck": stuck}


def _line(item: dict[str, Any], *, is_task: bool = False) -> dict[str, Any]:
    line = _with_usage(item)
    raw, entry = line.pop("body", None), line.pop("entry", None)
    if not isinstance(raw, bytes) or not raw:
        return line
    body = _opened(raw) or Body((), b"")
    if not is_task:
        line["command"] = _beginning(map(text, body.argv), list_command_bytes_max)
        if body.function:
            line["function"] = body.function
        if body.is_shell:
            line["is_shell"] = True
    if entry is not None:
        line["entry"] = _entry(body, entry, list_command_bytes_max)
    return line


def _beginning(texts: Iterable[str], bytes_max: int) -> list[str]:
    """Return the first texts, up to so many bytes; a cut is marked by an ellipsis."""
    shown, left = [], bytes_max
    for one in texts:
        size = len(one.encode())
        if size > left:
            shown.append(one.encode()[:left].decode(errors="ignore") + "…")
            break
        shown.append(one)
        left -= size + 1
    return shown


def _with_usage(value: dict[str, Any]) -> dict[str, Any]:
    value = dict(value)
    raw = value.pop("usage", None)
    if isinstance(raw, bytes) and raw:
        value["usage"] = usage(raw, value.get("run_us"))
    return value


def _usage(result: bytes) -> Usage | None:
    """Return what a worker says that an attempt used; None for what cannot be read, or cannot be.

    Of a number that is larger than these nobody could be told its multiples: they are none that a peer may send.
    """
    try:
        used = loads(result, Usage)
    except ProtocolError:
        return None
    numbers = (used.user_us, used.system_us, used.peak_kib, *used.written, *used.dropped)
    return used if min(numbers) >= 0 and max(numbers) <= used_max else None


def usage(result: bytes, run_us: int | None = None) -> dict[str, Any] | None:
    """Return what an attempt used as plain values: seconds, bytes. None for what cannot be read.

    More CPU time than it can have used while it ran is clipped, and said to be.
    """
    used = _usage(result)
    if used is None:
        return None
    most_us = 2 * used_max if run_us is None else cpu_us_max(run_us)
    user_us = min(used.user_us, most_us)
    system_us = min(used.system_us, most_us - user_us)
    fields: dict[str, Any] = {
        "user_s": user_us / 1e6,
        "system_s": system_us / 1e6,
        "peak_bytes": used.peak_kib * 1024 or None,  # below the launcher's own peak it is not known
        "stdout_bytes": used.written[0],
        "stderr_bytes": used.written[1],
        "stdout_dropped_bytes": used.dropped[0],
        "stderr_dropped_bytes": used.dropped[1],
        "core_dumped": used.core_dumped,
    }
    if (user_us, system_us) != (used.user_us, used.system_us):
        fields["cpu_clipped"] = True
    if used.output_held:
        fields["output_held"] = True
    if used.error:
        fields["error"] = used.error
    return fields


def written(result: bytes) -> tuple[int, int] | None:
    """Return how many bytes an attempt wrote to (stdout, stderr); None if its result does not say."""
    used = _usage(result) if result else None
    return used.written if used is not None else None


def _body(raw: bytes, entry: bytes | None, *, with_secrets: bool) -> dict[str, Any]:
    body = _opened(raw)
    if body is None:
        return {"command": None}
    fields: dict[str, Any] = {
        "command": _beginning(map(text, body.argv), shown_bytes_max),
        "cwd": text(body.cwd),
        "time_limit_s": body.time_limit_ms / 1_000 if body.time_limit_ms else None,
        "kill_after_s": body.kill_after_ms / 1_000,
        "if_cut": "stop" if body.stops_when_cut else "run",
        "stdin_bytes": len(body.stdin),
    }
    if body.is_shell:
        fields["is_shell"] = True  # so an entry is put in as a word of its line
    if body.stdout or body.stderr:
        fields |= {"stdout": text(body.stdout) or None, "stderr": text(body.stderr) or None}
    if body.function:
        fields |= {"function": body.function, "arguments": _arguments(body)}
    if entry is not None:
        fields["entry"] = _entry(body, entry, shown_entry_bytes_max)
    if with_secrets:
        pairs = (f"{name}={text(value)}" for name, value in sorted(body.environment.items()))
        fields["environment"] = dict(pair.partition("=")[::2] for pair in _beginning(pairs, shown_bytes_max))
    return fields


def _opened(raw: bytes) -> Body | None:
    try:
        return loads(raw, Body)
    except ProtocolError:
        return None


def _entry(body: Body, entry: bytes, bytes_max: int) -> list[str]:
    return _beginning(_columns(entry, is_plain=body.has_plain_entries), bytes_max)


def _arguments(body: Body) -> str:
    """Return the arguments of a function as they would be written in a call, up to a bound."""
    try:
        positional, named = loads_plain(body.arguments)
        words = [*map(repr, positional), *(f"{name}={value!r}" for name, value in named.items())]
    except (ProtocolError, TypeError, ValueError):
        return ""
    return ", ".join(_beginning(words, shown_bytes_max))


def _columns(entry: bytes, *, is_plain: bool) -> list[str]:
    """Return what a task has as {1}, {2}…; the one value of a function's task as `{}` would have it."""
    if not is_plain:
        return [text(column) for column in entry.split(b"\0")]
    try:
        value = loads_plain(entry)
    except ProtocolError:
        return []
    return [value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=text)]


def text(data: bytes) -> str:
    """Return bytes as text; what is not UTF-8 as backslash escapes."""
    return data.decode("utf-8", "backslashreplace")
