"""Which jobs and tasks words on the command line mean: `42`, `43.7`, `43.1-5`, `last`, `all`, `@failed`, names, tags.

Who looks needs ids (`single`, `expand`). Who acts hands ids and ranges to the server as they are, and everything else
as a filter (`targets`): the server walks what matches, however many.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from tq import errors, limits
from tq.cli.showing.pages import answers, first_of
from tq.cli.showing.present import ALIVE, TERMINAL
from tq.core import vocabulary as v
from tq.core.model.ids import is_name, means_ids, not_found
from tq.errors import BadRequest, NotAllowed, Refused, Stopping, StoreDamaged, TaskNotFound, TqError, Unauthorised

if TYPE_CHECKING:
    from tq.client.drivers.blocking import Client

_ID: Final = re.compile(r"\d{1,18}(?:\.\d{1,19})?", re.ASCII)
_SPAN: Final = re.compile(r"(\d{1,18})\.(\d{1,19})-(\d{1,19})", re.ASCII)
_STATES: Final = (*ALIVE, *TERMINAL, "failed")
_RUN: Final = re.compile(r"\d+(?:[,-]\d+)+", re.ASCII)
_APART: Final = "ids stand apart, as in 5 6 7; 43.1-5 are tasks of an array"
_LAST: Final = re.compile(r"last(?:\.\d{1,19}(?:-\d{1,19})?)?", re.ASCII)
_MEMBERS: Final = re.compile(r"(.+)\.(\d{1,19}(?:-\d{1,19})?)", re.ASCII)
_HINT: Final = "write 42, 43.7, 43.1-5, last, last.7, all, @failed, a name or tag, or NAME.7; `tq ls` lists jobs"
_OF_ALL: Final = (BadRequest, NotAllowed, Unauthorised, errors.Unknown, Stopping)  # what would come of each word


class LeftOut:
    """The words of a command line by which nothing was done: all the others come first, then these are an error."""

    def __init__(self) -> None:
        self._errors: dict[str, TqError] = {}

    @contextmanager
    def noting(self, word: str) -> Iterator[None]:
        """Note that a word is not found, or what is refused of it alone, and go on."""
        try:
            yield
        except (Refused, StoreDamaged) as error:
            if isinstance(error, _OF_ALL):
                raise
            self._errors[word] = error

    def note(self, words: Iterable[str]) -> None:
        """Note what a server has not found of several."""
        for word in words:
            self._errors[word] = TaskNotFound(f"not found: {word}", hint="`tq ls` lists jobs")

    def refuse(self) -> None:
        """Raise the error that names them, if there are any: with the status of what was refused, else TaskNotFound."""
        unknown = {word: error for word, error in self._errors.items() if isinstance(error, TaskNotFound)}
        whys: dict[str, list[str]] = {}
        for word, error in self._errors.items():
            if word not in unknown:
                whys.setdefault(error.message, []).append(word)
        if whys:
            parts = [f"{first_of(words)}: {why}" for why, words in whys.items()]
            parts += [f"not found: {first_of(list(unknown))}"] if unknown else []
            first = next(error for word, error in self._errors.items() if word not in unknown)
            raise type(first)("; ".join(parts), hint=first.hint)
        if unknown:
            raise not_found(unknown)

    @property
    def unknown(self) -> list[str]:
        """The words that name nothing, in order."""
        return [word for word, error in self._errors.items() if isinstance(error, TaskNotFound)]


class Targets:
    """What a client acts on: ids and ranges, and filters; `names` are the words for those of a name or a tag.

    Of the ids those that are `among` others; the filters say so themselves. `left_out` are the words for nothing.
    """

    def __init__(self, among: v.Where = v.Where()) -> None:
        self.among = among
        self.left_out = LeftOut()
        self.ids: dict[str, None] = {}
        self.filters: list[v.Where] = []
        self.names: list[str] = []


def targets(client: "Client", words: Sequence[str], among: v.Where = v.Where()) -> Targets:
    """Return what `words` mean for a verb that acts, of it what a filter matches.

    Raises BadRequest; TaskNotFound if all of them mean nothing.
    """
    found = Targets(among)
    for given in words:
        with found.left_out.noting(given):
            word = _numbered(client, given)
            span = _SPAN.fullmatch(word)
            if span is not None:
                _check_span(word, span)
            if span is not None or _ID.fullmatch(word):
                found.ids[word] = None
                continue
            where = _filter(client, word)
            both = _both(where, among, word)
            if both not in found.filters:
                found.filters.append(both)
                found.names += [word] if where.name or where.tag else []
    if not (found.ids or found.filters):
        found.left_out.refuse()
    return found


def groups(ids: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield `ids` in groups that one command may name, a range counting for each task of it."""
    group: list[str] = []
    weight = 0
    for word in ids:
        span = _SPAN.fullmatch(word)
        own = int(span[3]) - int(span[2]) + 1 if span else 1
        if group and weight + own > limits.members_per_command_max:
            yield tuple(group)
            group, weight = [], 0
        group.append(word)
        weight += own
    if group:
        yield tuple(group)


def expand(client: "Client", words: Sequence[str], bound: str = "wait_ids_max") -> list[str]:
    """Return the ids that `words` name, each once, in order; `all` are the jobs that have not ended.

    Raises BadRequest, also for more than that bound (limits.py), or TaskNotFound.
    """
    found: dict[str, None] = {}
    left_out = LeftOut()
    for word in words:
        with left_out.noting(word):
            for name in _ids(client, word, bound):
                found[name] = None
                if len(found) > getattr(limits, bound):
                    raise BadRequest(f"more than {bound}, {getattr(limits, bound)}, ids", hint="name whole jobs")
    left_out.refuse()
    return list(found)


def named(client: "Client", found: Targets) -> list[str]:
    """Return the ids of all that is to be acted on, each once: the ids given, then jobs of filters, oldest first.

    Raises BadRequest for more than one command line should do.
    """
    names = dict.fromkeys(found.ids)
    for where in found.filters:
        matching = list(islice(jobs(client, where), limits.wait_ids_max + 1))
        names.update(dict.fromkeys(reversed(matching)))
    if len(names) > limits.wait_ids_max:
        raise BadRequest(f"more than wait_ids_max, {limits.wait_ids_max}, jobs", hint="choose fewer by a name or a tag")
    return list(names)


def single(client: "Client", word: str) -> str:
    """Return the one id that `word` names; of several jobs of that name or tag the newest."""
    word = _numbered(client, word)
    if _ID.fullmatch(word):
        return word
    if _SPAN.fullmatch(word) or word == "all" or word.startswith("@"):
        listed = "; `tq ls --state failed` lists them" if word == "@failed" else ""
        raise BadRequest(f"{word} may name several tasks", hint=f"name one of them, as in 43.7{listed}")
    return next(jobs(client, _filter(client, word), 1))


def alive(client: "Client", word: str) -> list[str]:
    """Return the ids that `word` names: of several jobs those that have not ended, or else the newest."""
    word = _numbered(client, word)
    if _ID.fullmatch(word):
        return [word]
    if _SPAN.fullmatch(word) or word == "all" or word.startswith("@"):
        return expand(client, [word])
    where = _filter(client, word)
    found: list[str] = []
    for job in jobs(client, v.Where(ALIVE, tag=where.tag, name=where.name)):
        found.append(job)
        if len(found) > limits.wait_ids_max:
            raise BadRequest(f"more than wait_ids_max, {limits.wait_ids_max}, ids", hint="name whole jobs")
    return found or [next(jobs(client, where, 1))]


def jobs(client: "Client", where: v.Where, page_items: int = limits.page_items_max) -> Iterator[str]:
    """Yield the ids of the jobs that match, newest first, page by page."""
    return _listed(client, lambda page: v.List("", where.states, where.queue, where.tag, where.name, page_items, page))


def letters(client: "Client", where: v.Where) -> Iterator[str]:
    """Yield the ids of the dead letters that match, oldest first, page by page."""
    return _listed(client, lambda page: v.DeadLetters(where, limits.page_items_max, page))


def _listed(client: "Client", asking: Callable[[str], v.ClientCommand]) -> Iterator[str]:
    for answer in answers(client, v.Page, asking):
        yield from (str(item.get("id", "")) for item in answer.items)


def _ids(client: "Client", word: str, bound: str) -> Iterator[str]:
    word = _numbered(client, word)
    span = _SPAN.fullmatch(word)
    if _ID.fullmatch(word):
        yield word
    elif span is not None:
        _check_span(word, span, bound)
        yield from (f"{span[1]}.{value}" for value in range(int(span[2]), int(span[3]) + 1))
    else:
        yield from jobs(client, v.Where(ALIVE) if word == "all" else _filter(client, word))


def _check_span(word: str, span: re.Match[str], bound: str = "wait_ids_max") -> None:
    job, first, last = span[1], int(span[2]), int(span[3])
    if last < first:
        raise BadRequest(f"{word} runs backwards", hint=f"write {job}.{last}-{first}")
    if last - first >= (ids_max := getattr(limits, bound)):
        raise BadRequest(f"{word} names more than {bound}, {ids_max}, tasks", hint=f"name {job}")


def _filter(client: "Client", word: str) -> v.Where:
    """Return the filter that a word other than an id stands for: a name, if a job has it, else a tag."""
    if word == "all":
        return v.Where()
    if word == "@failed":
        return v.Where(states=("failed",))
    if word.startswith("@"):
        raise BadRequest(f"{word!r} selects nothing", hint="@failed is what there is; for others: --state STATE")
    if not is_name(word) or means_ids(word):
        shown = word if len(word) <= 40 else word[:40] + "…"
        raise BadRequest(f"{shown!r} is not an id", hint=_APART if _RUN.fullmatch(word) else _HINT)
    if (found := _named(client, word)) is not None:
        return found[0]
    hint = _HINT if word not in _STATES else f"a state is chosen by an option, as in `tq ls --state {word}`"
    raise TaskNotFound(f"{word!r} is not an id, and no job has that name or tag", hint=hint)


def _named(client: "Client", word: str) -> tuple[v.Where, str] | None:
    """Return the filter for jobs of a name, or else of a tag, and the newest of them; None if there is none."""
    for where in (v.Where(name=word), v.Where(tag=word)):
        if (newest := next(jobs(client, where, 1), None)) is not None:
            return where, newest
    return None


def _both(where: v.Where, among: v.Where, word: str) -> v.Where:
    """Return the filter for what a word and a filter both mean. Raises BadRequest where they contradict each other."""
    said = {field: value for field in v.Where.__struct_fields__ if (value := getattr(among, field))}
    if any(getattr(where, field) not in ((), "", value) for field, value in said.items()):
        raise BadRequest(f"{word} and the filter ask for different jobs", hint="leave one of them out")
    return replace(where, **said)


def _numbered(client: "Client", word: str) -> str:
    """Return the word with a job's id in the place of `last`, or of a name in front of members: `nightly.1-5`.

    A name or a tag means a job there where it is that of one job alone. Raises TaskNotFound.
    """
    if not _LAST.fullmatch(word):
        return _of_named(client, word)
    page = client.ask(v.List(limit=1))
    if not isinstance(page, v.Page) or not page.items:
        raise TaskNotFound("there is no job yet", hint="submit one: tq submit -- echo hello")
    return str(page.items[0].get("id", "")) + word.removeprefix("last")


def _of_named(client: "Client", word: str) -> str:
    """Return `43.7` for `nightly.7` where job 43 alone is called nightly, and none nightly.7; else the word."""
    match = _MEMBERS.fullmatch(word)
    if match is None or not is_name(match[1]) or means_ids(match[1]) or means_ids(word):
        return word
    if (is_name(word) and _named(client, word) is not None) or (found := _named(client, match[1])) is None:
        return word
    where, newest = found
    if len(list(islice(jobs(client, where, 2), 2))) > 1:
        raise TaskNotFound(
            f"{word!r}: several jobs have the name or tag {match[1]}", hint=f"of the newest: {newest}.{match[2]}"
        )
    return f"{newest}.{match[2]}"
