"""Where an array's entries come from, as the options say, and their way to the server before the submit."""

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from tq.cli.frame import context
from tq.errors import BadRequest, NotDone
from tq.wire import placeholders

if TYPE_CHECKING:
    from tq.cli.showing.output import Ticker
    from tq.client.drivers.blocking import Client
    from tq.client.drivers.upload import Sent
    from tq.client.sansio.runs import Runs
    from tq.core.vocabulary import Submit

_SHOWN_EVERY_S: Final = 0.2


class Wanted(NamedTuple):
    """How a request wants its entries: the longest, whether as plain data instead of text, the least columns."""

    bytes_max: int
    is_plain: bool
    columns_min: int


class Survey(NamedTuple):
    """What was found in entries that were read and not sent: how many they are, and the first of them."""

    size: int
    first: list[bytes]


class Supply(NamedTuple):
    """One kind of inputs: `open` gives the runs of entries as they are wanted; `name` is for people.

    `columns` are the most that an entry has; `has_items`: there are items of JSON.
    """

    name: str
    columns: int
    reads_stdin: bool
    open: "Callable[[Wanted], Runs]"
    has_items: bool = False
    has_lines: bool = False


def chosen(
    each_line: str, from_json: str, lists: list[list[str]], colsep: str = "", csv: bool = False
) -> Supply | None:
    """Return what the options ask for, None for a job without entries. Raises BadRequest if they ask for two."""
    from tq.cli.submitting import columns

    split = columns.chosen(each_line, colsep, csv) if colsep or csv else None
    if bool(each_line) + bool(from_json) + bool(lists) > 1:
        raise BadRequest("tasks get their entries in one way", hint="choose --each-line, --from-json or :::")
    if not (each_line or from_json or lists):
        return None
    from tq.cli.submitting import entries

    if each_line:
        return Supply(
            each_line,
            placeholders.numbered_max if split else 1,
            each_line == "-",
            lambda how: entries.from_lines(each_line, how.bytes_max, split, how.columns_min),
            has_lines=True,
        )
    if from_json:
        open_json = lambda how: entries.from_json(from_json, how.bytes_max, how.is_plain)  # noqa: E731
        return Supply(from_json, 1, from_json == "-", open_json, has_items=True)
    words = [[os.fsencode(word) for word in one] for one in lists]
    return Supply(":::", len(lists), False, lambda how: entries.from_lists(words, how.bytes_max))


def survey(talk_to: context.Context, supply: Supply, how: Wanted, first: int) -> Survey:
    """Read all entries without sending them. Raises what is wrong with them."""
    size, begin = 0, list[bytes]()
    for run in _runs(talk_to, supply, how):
        size += len(run)
        begin += run[: first - len(begin)]
    return Survey(_some(supply, size), begin)


def _runs(talk_to: context.Context, supply: Supply, how: Wanted) -> "Runs":
    """Yield the entries in runs. It is said where the first lines end with CR, as on Windows: nobody sees that."""
    is_first = supply.has_lines
    for run in supply.open(how):
        if is_first and run:
            is_first = False
            if all(line.endswith(b"\r") for line in run[:-1] or run):  # the last one may just have no end
                talk_to.talk(
                    "hint: lines end with CR LF here, and a CR stays in each entry; take it off with tr -d '\\r'"
                )
        yield run


def upload(talk_to: context.Context, client: "Client", supply: Supply, request: "Submit", how: Wanted) -> "Sent":
    """Send all entries, and return what the request says of them. Ctrl-C, or a cut for too long, leaves no job."""
    from tq.cli.showing.output import Ticker
    from tq.client.drivers.upload import EntryUpload

    bar = _Bar(Ticker(is_quiet=talk_to.quiet))
    try:
        sent = EntryUpload(client, request, _runs(talk_to, supply, how), bar.show).run()
    except (KeyboardInterrupt, NotDone) as stop:
        bar.clear()
        begin = "\n" if isinstance(stop, KeyboardInterrupt) else ""  # behind the ^C of the terminal
        talk_to.talk(
            f"{begin}tq: nothing was submitted. To go on where it was: the same command with --key {request.key}"
        )
        raise
    finally:
        bar.clear()
    _some(supply, sent.size)
    return sent


def _some(supply: Supply, size: int) -> int:
    if not size:
        what = "standard input" if supply.name == "-" else supply.name
        raise BadRequest(f"there are no entries in {what}", hint="an array has at least one task")
    return size


class _Bar:
    """One short line on a terminal: how many entries are on the server's disk, and how fast they get there."""

    def __init__(self, ticker: "Ticker") -> None:
        self._ticker = ticker
        self._began_s = time.monotonic()
        self._drawn_s = self._began_s
        self.clear = ticker.clear

    def show(self, stored: int) -> None:
        """Draw, unless it was drawn a moment ago."""
        now_s = time.monotonic()
        if not self._ticker.is_shown or now_s - self._drawn_s < _SHOWN_EVERY_S:
            return
        self._drawn_s = now_s
        rate = f", {stored / (now_s - self._began_s):,.0f}/s"
        note = f"{stored:,} stored"
        room = self._ticker.columns - 1
        self._ticker.draw((note + rate if len(note + rate) <= room else note)[:room])
