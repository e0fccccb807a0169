"""Which jobs and tasks words on the command line name: `42`, `43.7`, `43.1-5`, `last`."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tq import limits
from tq.core import vocabulary as v
from tq.errors import BadRequest, TaskNotFound

if TYPE_CHECKING:
    from tq.client.blocking import Client

_ID = re.compile(r"\d{1,18}(?:\.\d{1,18})?", re.ASCII)
_SPAN = re.compile(r"(\d{1,18})\.(\d{1,18})-(\d{1,18})", re.ASCII)


def expand(client: "Client", words: Sequence[str]) -> list[str]:
    """Return the ids that `words` name, each once, in order. Raises BadRequest or TaskNotFound."""
    found: dict[str, None] = {}
    for word in words:
        found.update(dict.fromkeys(_one(client, word)))
        if len(found) > limits.wait_ids_max:
            raise BadRequest(f"more than wait_ids_max, {limits.wait_ids_max}, ids", hint="name whole jobs")
    return list(found)


def single(client: "Client", word: str) -> str:
    """Return the one id that `word` names."""
    found = _one(client, word)
    if len(found) != 1:
        raise BadRequest(f"{word} names {len(found)} tasks", hint=f"name one of them, as in {found[0]}")
    return found[0]


def _one(client: "Client", word: str) -> list[str]:
    if _ID.fullmatch(word):
        return [word]
    span = _SPAN.fullmatch(word)
    if span is not None:
        job, first, last = span[1], int(span[2]), int(span[3])
        if last < first:
            raise BadRequest(f"{word} runs backwards", hint=f"write {job}.{last}-{first}")
        if last - first >= limits.wait_ids_max:
            raise BadRequest(f"{word} names more than wait_ids_max, {limits.wait_ids_max}, tasks")
        return [f"{job}.{value}" for value in range(first, last + 1)]
    if word == "last":
        return [_last(client)]
    raise BadRequest(f"{word!r} is no id", hint="write 42, 43.7, 43.1-5 or last; `tq ls` lists them")


def _last(client: "Client") -> str:
    page = client.ask(v.List(limit=1))
    if not isinstance(page, v.Page) or not page.items:
        raise TaskNotFound("there is no job yet", hint="submit one: tq submit -- echo hello")
    return str(page.items[0].get("id", ""))
