"""Bare `tq`: how the server is doing, in a few lines."""

from itertools import chain
from typing import Any

from tq.cli.frame.context import Context
from tq.cli.showing.pages import every
from tq.cli.showing.present import counted
from tq.client.sansio.documents import expect

_STUCK_MAX = 3
_SWEEPS_MAX = 3
_WHERE = {"dead": " (tq dlq ls)"}  # to look at tasks in this state


def status(context: Context) -> None:
    """Print where the server is, who works, and how many tasks are in which state."""
    from tq.cli.showing import output
    from tq.client import target
    from tq.client.sansio import documents
    from tq.core import vocabulary as v

    with context.client() as client:
        answer = expect(v.Document, client.ask(v.Status()))
        role = client.role
        none = dict.fromkeys(answer.value.get("tasks") or {}, 0)
        items = chain.from_iterable(every(client, v.Queues))
        queues = {item["id"]: {**none, **(item.get("counts") or {})} for item in items}
    item = {"url": target.find({"url": context.url}, context.environ).url, "role": role} | documents.document(
        {**answer.value, "queues": queues}
    )
    if context.format != "table":
        output.print_one(context, {"id": item["url"], **item}, [])
        return
    output.print_pairs(context, lines(item))
    if not any(_numbers(item.get("tasks"))):
        context.talk("hint: run something with `tq run -- echo hello`; `tq --help` lists the verbs")


def lines(item: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the short status as pairs."""
    tasks = item.get("tasks") or {}
    shown = (f"{count} {state}{_WHERE.get(state, '')}" for state, count in tasks.items() if count)
    drain = f", {item['draining']} draining" if item.get("draining") else ""
    pairs = [
        ("server", f"{item['url']} ({item.get('role') or '?'})"),
        ("workers", f"{item.get('workers', 0)} with {counted(item.get('slots', 0), 'slot')}{drain}"),
        ("tasks", ", ".join(shown) or "none"),
    ]
    room = (item.get("server") or {}).get("room", "normal")
    if room != "normal":
        pairs.append(("disk", "nearly full: no new work is taken" + (", nothing starts" if room == "critical" else "")))
    for queue, counts in (item.get("queues") or {}).items():
        waiting = {state: count for state, count in counts.items() if count and state in {"queued", "running", "held"}}
        if waiting and len(item.get("queues") or {}) > 1:
            pairs.append((f"queue {queue}", ", ".join(f"{count} {state}" for state, count in waiting.items())))
    pairs.extend(("background", _sweep(one)) for one in (item.get("sweeps") or [])[:_SWEEPS_MAX])
    stuck = (item.get("stuck") or [])[:_STUCK_MAX]
    pairs.extend(("stuck", f"{one.get('tasks')} in queue {one.get('queue')}: {one.get('reason')}") for one in stuck)
    return pairs


def _sweep(one: dict[str, Any]) -> str:
    """Return which verb goes on, and how far it is."""
    job, last = one.get("job"), one.get("last")
    return f"{one.get('verb')} of job {job}" if job == last else f"{one.get('verb')}: at job {job} of {last}"


def _numbers(counts: Any) -> list[int]:
    return [count for count in (counts or {}).values() if isinstance(count, int)]
