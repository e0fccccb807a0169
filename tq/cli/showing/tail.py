"""The last lines that an attempt has written: what a person wants to see first of one that failed."""

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
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
