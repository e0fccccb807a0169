"""A list that the server answers page by page, to be shown as it comes."""

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from tq.client.sansio.documents import expect
from tq.errors import BadRequest, StoreDamaged

if TYPE_CHECKING:
    from tq.cli.frame.context import Context
    from tq.client.drivers.blocking import Client
    from tq.core import vocabulary as v

_PAGE_ITEMS = 250
_IDS_MAX = 3  # that are named of many
_TOGETHER_S = 0.3  # for so long what comes bit by bit waits for more: it is one table then

Items = list[dict[str, Any]]
_Answer = TypeVar("_Answer", "v.Page", "v.Results")


def answers(client: "Client", kind: type[_Answer], ask: "Callable[[str], v.ClientCommand]") -> Iterator[_Answer]:
    """Yield all pages, each asked for when the one before it was taken. `ask` gets where they go on."""
    page: str | None = ""
    while page is not None:
        answer = expect(kind, client.ask(ask(page)))
        yield answer
        page = answer.next or None


class Pages:
    """Documents page by page, at most `limit` (0 = all); `next` is where the list goes on, "" when it ends.

    `count` are those that came so far, `unread` the ids that stand where the server's store is damaged.
    `ask` gets how many are wanted, and the page. `wanted` may leave some out; it ends the list where it leaves out any.
    """

    def __init__(
        self,
        ask: "Callable[[int, str], v.Answer]",
        limit: int,
        page: str,
        wanted: Callable[[dict[str, Any]], bool] = lambda _: True,
    ) -> None:
        if limit < 0:
            raise BadRequest(f"-n {limit} must not be negative", hint="0 lists all")
        self.next = page
        self.count = 0
        self.unread: list[str] = []
        self._ask = ask
        self._limit = limit
        self._wanted = wanted

    def __iter__(self) -> Iterator[Items]:
        from tq.core import vocabulary as v

        together: Items = []
        begin_s = time.monotonic()
        while True:
            items = min(self._limit - self.count, _PAGE_ITEMS) if self._limit else _PAGE_ITEMS
            answer = expect(v.Page, self._ask(items, self.next))
            kept = [item for item in answer.items if self._wanted(item)]
            self.count += len(kept)
            self.unread += answer.unread
            self.next = answer.next if len(kept) == len(answer.items) else ""
            together += kept
            is_last = not self.next or (self._limit and self.count >= self._limit)
            if together and (is_last or len(together) >= _PAGE_ITEMS or time.monotonic() - begin_s >= _TOGETHER_S):
                yield together
                together, begin_s = [], time.monotonic()
            if is_last:
                return

    def say_rest(self, context: "Context") -> None:
        """Say under a table that there is more. Raises StoreDamaged for what should stand there and cannot be read."""
        if self.unread:
            raise StoreDamaged(
                f"the server's store is damaged where these stand: {first_of(self.unread)}",
                hint="its log says more; on its machine, with the server stopped: tq store check",
            )
        if self.next and context.is_table:
            context.talk(f"tq: there are more; see them with -n {self._limit * 2} or -n 0")


def first_of(ids: list[str]) -> str:
    """Return the first few ids, and how many others there are."""
    others = f" and {len(ids) - _IDS_MAX} more" if len(ids) > _IDS_MAX else ""
    return ", ".join(ids[:_IDS_MAX]) + others


def around(client: "Client", command: "v.List | v.DeadLetters") -> "v.Answer":
    """Ask for a page of a list; where damage of the server's store ends it, for what stands around that.

    It is asked like anybody first: so the server's log has where the damage is.
    """
    import msgspec

    try:
        return client.ask(command)
    except StoreDamaged:
        return client.ask(msgspec.structs.replace(command, around=True))


def every(client: "Client", kind: "type[v.Workers | v.Queues | v.Tokens]") -> Pages:
    """Return all that there are of a kind, page by page."""
    return Pages(lambda items, page: client.ask(kind(items, page)), 0, "")
