"""`tq result`: how tasks ended, and what they returned, for programs."""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import typer

from tq.cli.frame import options
from tq.cli.frame.context import Context
from tq.cli.frame.verb import Verb
from tq.cli.showing.pages import answers
from tq.client.sansio.documents import expect
from tq.errors import ProtocolError

if TYPE_CHECKING:
    from tq.client.drivers.blocking import Client
    from tq.core import vocabulary as v

_FIELDS: Final = (
    "id", "state", "exit_code", "signal", "cause", "attempt", "host", "submitted_at", "started_at", "ended_at",
    "run_s", "usage",
)  # fmt: skip


def result(ctx: typer.Context, id: options.Id) -> None:  # noqa: A002 - the word in the help
    """Print how a task ended and what it returned, as JSON unless -o says otherwise.

    `value` is what a function returned, or what a command wrote to the file TQ_RESULT; `error` has type, message and
    traceback of an exception, or the message alone of another failure. Bytes in a value are base64, numbers that JSON
    does not have are null. What has not come is null: it does not wait (`tq wait` does). Of an array it prints a line
    for each task, in order.
    """
    from tq.cli.showing import output, present, selectors
    from tq.client.sansio import documents
    from tq.core import vocabulary as v

    context: Context = ctx.obj
    with context.client() as client:
        name = selectors.single(client, id)
        answer = expect(v.Document, client.ask(v.Get(name)))
        shown = documents.document(answer.value)
        if shown.get("is_array") and "attempt" not in shown:
            _print_all(context, client, name)
            return
        item = outcome(shown)
        if shown.get("value_bytes"):
            item |= returned(next(_pages(client, name))[0])
    if context.output in {"", "json", "jsonl"} and context.format != "id":
        output.print_json(item)
        return
    pairs = ((present.label(key), _text(key, value)) for key, value in item.items())
    output.print_one(context, item, ((label, text) for label, text in pairs if text))


def outcome(shown: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a shown document that say how it ended, all of them, null for what is not known."""
    item = {field: shown.get(field) for field in _FIELDS}
    if item["cause"] == "none":
        item["cause"] = None
    if shown.get("run_clipped"):
        item["run_clipped"] = True
    why = (shown.get("usage") or {}).get("error")
    return item | {"value": None, "error": _error(why) if why else None}


def returned(result: "v.Result") -> dict[str, Any]:
    """Return the fields that say what a task returned or raised."""
    from tq.wire import plain

    odd = {"value": None, "error": _error("what its worker says that it returned cannot be read")}
    try:
        value = plain.loads(result.value) if result.value else None
    except ProtocolError:
        return odd
    if result.cause != "exception":
        return {"value": value, "error": None}
    if not isinstance(value, dict):
        return odd
    return {"value": None, "error": {field: _said(value, field) for field in _error("")}}


def _said(raised: dict[str, Any], field: str) -> str | None:
    return str(raised[field]) if raised.get(field) is not None else None


def _error(message: str) -> dict[str, Any]:
    return {"type": None, "message": message, "traceback": None}


def _pages(client: "Client", name: str) -> "Iterator[tuple[v.Result, ...]]":
    """Return the results of a job or task as they come."""
    from tq.core import vocabulary as v

    return (answer.items for answer in answers(client, v.Results, partial(v.GetResults, name)))


def _print_all(context: Context, client: "Client", name: str) -> None:
    """Print a line for each task of an array: JSON lines, unless a format is named."""
    from tq.cli.showing import output

    pages = ([_line(result) for result in page] for page in _pages(client, name))
    if not context.output and context.format != "id":
        for page in pages:
            for item in page:
                output.print_json(item)
        return
    output.print_pages(context, pages, lambda: "", _rows, what="results")


def _line(result: "v.Result") -> dict[str, Any]:
    from tq.cli.showing import present
    from tq.client.sansio import documents
    from tq.client.sansio.function_call import reason

    ended_ms = int(result.state in present.TERMINAL)
    ending = documents.document(
        {"cause": result.cause, "code": result.code, "phase": result.phase or "ended", "ended_ms": ended_ms}
    )
    usage = {"error": reason(result.usage)}
    item = outcome({"id": result.id, "state": result.state, "attempt": result.attempt, "usage": usage, **ending})
    fields = ("id", "state", "exit_code", "signal", "cause", "attempt", "value", "error")
    return {field: item[field] for field in fields} | (returned(result) if result.value else {})


def _rows(items: list[dict[str, Any]]) -> list[list[str]]:
    from tq.cli.showing import present

    rows = [["ID", "STATE", "CAUSE", "CODE", "VALUE"]]
    for item in items:
        error = item["error"] or {}
        value = error.get("message") or ("-" if item["value"] is None else _text("value", item["value"]))
        rows.append([item["id"], item["state"], present.blank(item["cause"]), present.code_text(item), value])
    return rows


def _text(key: str, value: Any) -> str:
    from tq.cli.showing import output, present

    if key == "value":
        return "" if value is None else output.json_text(value)
    if key == "error" and value:
        return str(value["traceback"] or value["message"])
    return present.value_text(key, value)


VERBS = {"result": Verb(result, ("tq result 42", "tq result 43.7 -o table", "tq result 43 | jq .value"))}
