"""`tq show`: everything about jobs or tasks, one after the other."""

import time
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tq.cli.frame import options
from tq.cli.frame.context import Context
from tq.cli.frame.verb import Verb
from tq.cli.showing.pages import answers
from tq.client.sansio.documents import expect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tq.client.drivers.blocking import Client

_BYTES: Final = 2_000
_QUIET: Final = frozenset({"none", "cancelled", "requeue", "drain", "worker_trouble"})


def last_lines(client: "Client", task: str, attempt: int, lines: int = 3) -> list[str]:
    """Return the last lines of an attempt's stderr, or of its stdout where it wrote nothing there."""
    from tq.core import vocabulary as v

    streams = {1: b"", 2: b""}
    for answer in client.subscribe(lambda: v.Logs(task, attempt, tail_bytes=_BYTES)):
        if isinstance(answer, v.Chunk) and answer.stream in streams:
            streams[answer.stream] += answer.data
    text = (streams[2].strip() or streams[1].strip()).decode("utf-8", "backslashreplace")
    return text.splitlines()[-lines:]


def add_last_lines(client: "Client", document: dict[str, Any]) -> None:
    """Put `last_lines` into the document of a task: of its latest attempt and of each in its history that failed."""
    task = str(document.get("id"))
    ended = [entry for entry in document.get("history") or () if entry.get("cause") not in _QUIET]
    if document.get("state") in {"dead", "retrying"}:
        ended.append(document)
    for entry in ended:
        if entry.get("attempt"):
            entry["last_lines"] = last_lines(client, task, entry["attempt"])


# What a person looks for first, in this order; what is not named here follows.
_FIRST: Final = (
    "id", "state", "reason", "name", "command", "function", "arguments", "entry", "counts", "exit_code", "signal",
    "cause", "attempt", "failures", "losses", "worker", "host", "submitted_at", "leased_at", "started_at", "ended_at",
    "job_ended_at", "value_bytes", "run_s", "usage", "queue", "priority", "tags",
)  # fmt: skip
_FIRST_MEMBERS: Final = 5
_ENTRY_CHARS: Final = 40  # of a member's entry in a line of its job
_FAILED_PAGES: Final = 4  # of records that are looked through for the first that failed
_UNSAID: Final = frozenset(
    (
        "is_array", "is_stuck", "history", "lease", "phase", "max_fails", "last_lines", "purged", "round", "is_shell",
        "run_clipped",
    )
)  # for programs  # fmt: skip
_CLIPPED: Final = "clipped: the worker said a time that is not possible"


Shown = Annotated[list[str], typer.Argument(metavar="ID...", help=options.ONE, show_default=False)]


def show(ctx: typer.Context, ids: Shown) -> None:
    """Show everything about a job or task, or several; of an array also what runs and what failed first."""
    from tq.cli.showing import output, selectors

    context: Context = ctx.obj
    left_out, is_first = selectors.LeftOut(), True
    with context.client() as client:
        for word in ids:
            with left_out.noting(word):
                document = ask(client, word)
                members = _members(client, document) if context.is_table and is_whole_array(document) else []
                if not is_first and context.is_table:
                    output.print_line("")
                is_first = False
                print_document(context, document, members)
    left_out.refuse()


def is_whole_array(document: dict[str, Any]) -> bool:
    """Whether this is the document of an array, and not that of one task."""
    return bool(document.get("is_array")) and "." not in str(document["id"])


def ask(client: "Client", word: str) -> dict[str, Any]:
    """Return the document of one job or task, with the last lines of what failed."""
    from tq.cli.showing import selectors
    from tq.core import vocabulary as v

    answer = expect(v.Document, client.ask(v.Get(selectors.single(client, word))))
    add_last_lines(client, answer.value)
    return answer.value


def print_document(context: Context, document: dict[str, Any], more: "Sequence[tuple[str, str]]" = ()) -> None:
    """Print it in the format asked for; a table ends with `more`."""
    from tq.cli.showing import output
    from tq.client.sansio import documents

    item = documents.document(document)
    output.print_one(context, item, [*lines(item, round(time.time() * 1_000), document), *more])


def _members(client: "Client", document: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what a person wants to know of the members of an array: the first that failed and why, and what runs."""
    from tq.cli.showing import present

    pairs = failed(client, document, ("dead", "expired"), 1)
    job, counts, now_ms = str(document["id"]), document.get("counts") or {}, round(time.time() * 1_000)
    count = counts.get("running", 0)
    if count:
        lines = []
        for item in _first(client, job, ("running",), 1):
            since = f"  for {present.ago(item['started_ms'], now_ms)}" if item.get("started_ms") else ""
            lines.append(f"{_named(item)}  on {item.get('host') or item.get('worker')}{since}")
        pairs.append(("running", _with_rest(lines, count, f"tq ls {job} --state running")))
    return pairs


def failed(client: "Client", job: dict[str, Any], states: tuple[str, ...], last: int) -> list[tuple[str, str]]:
    """Return the first members of an array in these states: why each failed, and the last lines that it wrote."""
    from tq.cli.showing import present
    from tq.client.sansio import documents

    counts = job.get("counts") or {}
    count = sum(counts.get(state, 0) for state in states)
    if not count:
        return []
    lines: list[str] = []
    for item in _first(client, str(job["id"]), states, _FAILED_PAGES):
        shown = documents.document(item)
        code = present.code_text(shown)
        how = {"exit": f"exit {code}", "signal": code}.get(str(item.get("cause")), item.get("cause") or item["state"])
        text = last_lines(client, item["id"], item["attempt"], last) if item.get("attempt") else []
        text = text or _error(client, item)
        head = f"{_named(shown)}  {how}"
        lines.append(": ".join([head, *text]) if last == 1 else "\n  ".join([head, *text]))
    return [("failed", _with_rest(lines, count, f"tq ls {job['id']} --state failed"))]


def _error(client: "Client", item: dict[str, Any]) -> list[str]:
    """Return what the worker said of a task that failed otherwise than by its exit code: its first line, if any."""
    from tq.client.sansio import documents
    from tq.core import vocabulary as v

    if item.get("cause") in {"exit", "signal"}:
        return []
    found = documents.document(expect(v.Document, client.ask(v.Get(item["id"]))).value)
    return str((found.get("usage") or {}).get("error") or "").splitlines()[:1]


def _named(item: dict[str, Any]) -> str:
    """Return a member by its id and the beginning of its entry, which says more."""
    from tq.cli.showing import escape, present

    entry = escape.line(present.command_line(item.get("entry")))
    return f"{item['id']} {entry[:_ENTRY_CHARS]}{'…' if len(entry) > _ENTRY_CHARS else ''}".rstrip()


def _first(client: "Client", job: str, states: tuple[str, ...], pages: int) -> list[dict[str, Any]]:
    """Return the first members in a state, as far as so many pages have them."""
    from tq.core import vocabulary as v

    found: list[dict[str, Any]] = []
    asked = answers(client, v.Page, lambda page: v.List(job, states, limit=_FIRST_MEMBERS - len(found), page=page))
    for answer in islice(asked, pages):
        found.extend(answer.items)
        if len(found) >= _FIRST_MEMBERS:
            break
    return found


def _with_rest(lines: list[str], count: int, command: str) -> str:
    """Return the lines, and where to see the others."""
    rest = count - len(lines)
    more = f"and {rest} more: {command}" if lines else f"{count}: {command}"
    return "\n".join([*lines, *([more] if rest > 0 else [])])


def lines(item: dict[str, Any], now_ms: int, raw: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the table of one job or task; what is empty is left out. `raw` has the instants in ms."""
    from tq.cli.showing import present

    unsaid = {*_UNSAID, *({"job_ended_at"} if item.get("ended_at") else ())}
    if item.get("size") == 1 or "." in str(item.get("id")):
        unsaid |= {"size", "counts"}
    keys = [*(key for key in _FIRST if key in item), *(key for key in item if key not in _FIRST)]
    pairs: list[tuple[str, str]] = []
    for key in keys:
        value = item[key]
        if key == "usage" and isinstance(value, dict) and value.get("error"):
            pairs.append(("error", str(value["error"])))
            value = {name: part for name, part in value.items() if name != "error"}
        is_clipped = key == "run_s" and item.get("run_clipped")
        if key == "usage" and isinstance(value, dict) and value.get("cpu_clipped"):
            is_clipped = True
            value = {name: part for name, part in value.items() if name != "cpu_clipped"}
        shown = present.what(item) if key == "command" and value else present.value_text(key, value)
        shown += f" ({_CLIPPED})" if is_clipped else ""
        if not shown or key in unsaid:
            continue
        ms = raw.get(key.removesuffix("_at") + "_ms") if key.endswith("_at") else 0
        due_ms = raw.get("due_ms") or 0 if key == "reason" else 0
        if due_ms > now_ms:
            shown += f", {present.when(due_ms, now_ms)}"
        pairs.append((present.label(key), f"{shown} ({present.when(ms, now_ms)})" if ms else shown))
    if item.get("last_lines"):
        pairs.append(("last lines", "\n".join(item["last_lines"])))
    for entry in item.get("history") or []:
        parts = [
            f"{present.label(key)} {text}" if key in {"exit_code", "signal", "started_at", "ended_at"} else text
            for key, value in entry.items()
            if key not in {"attempt", "charged", "last_lines"} and (text := present.value_text(key, value))
        ]
        written = [f"  {text}" for text in entry.get("last_lines") or ()]
        pairs.append((f"attempt {entry.get('attempt', '')}", "\n".join([", ".join(parts), *written])))
    return pairs


VERBS = {"show": Verb(show, ("tq show 42", "tq show 43.7 -o json", "tq show nightly last"))}
