"""The public Python API without trio: as api.py, call for call, over one blocking connection; one thread at a time."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf
from threading import Lock
from typing import Any, Self, TypeVar, Unpack

from tq import limits
from tq.client import blocking, flows, requests, target
from tq.client.losses import closed
from tq.client.requests import Options
from tq.client.results import TaskResult
from tq.core import vocabulary as v
from tq.errors import NotDone, ProtocolError, TimedOut

_T = TypeVar("_T")


def connect_blocking(
    url: str = "", *, environ: Mapping[str, str] = os.environ, patience_s: float = 60.0
) -> "BlockingClient":
    """Connect to a server for the length of a block, or until `close`; see `connect`."""
    client = blocking.Client(lambda: target.find({"url": url}, environ), patience_s=patience_s)
    client.connect()
    return BlockingClient(client)


class BlockingClient:
    """A server to talk to, made by `connect_blocking`; see `Client`. Threads that ask at once need one each."""

    def __init__(self, client: blocking.Client) -> None:
        self.is_closed = False
        self._client = client
        self._turn = Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, as the end of a block does. Whoever asks later is told so."""
        self.is_closed = True
        self._client.close()

    def submit(
        self, function: str, *args: Any, kwargs: Mapping[str, Any] | None = None, **options: Unpack[Options]
    ) -> "BlockingJob":
        """Submit one call of `"module:name"`; see `Client.submit`."""
        return self._submit(requests.function(function, args, kwargs or {}, options))

    def map(
        self,
        function: str,
        items: Iterable[Any],
        *args: Any,
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[Options],
    ) -> "BlockingJob":
        """Submit one job with a task for each item; see `Client.map`."""
        return self._submit(requests.function_for_each(function, args, kwargs or {}, options), items)

    def submit_command(
        self,
        argv: Sequence[str | bytes | os.PathLike[str]],
        *,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        **options: Unpack[Options],
    ) -> "BlockingJob":
        """Submit a program with its arguments; see `Client.submit_command`."""
        return self._submit(requests.command(argv, cwd=cwd, env=env, stdin=stdin, options=options))

    def job(self, id: str) -> "BlockingJob":  # noqa: A002 - the word that everybody uses
        """Return a job or task by its id, without asking whether there is one."""
        return BlockingJob(self, requests.check_id(id))

    def _submit(self, request: v.Submit, items: Iterable[Any] | None = None) -> "BlockingJob":
        submitted = self.follow(flows.submitting(request, items))
        return BlockingJob(self, submitted.id, existed=submitted.existed, warning=submitted.warning)

    def follow(self, flow: flows.Flow[_T], timeout_s: float = inf) -> _T:
        """Ask what a flow asks, until it returns. Raises TimedOut for an answer that takes longer."""
        try:
            command = next(flow)
            while True:
                command = flow.send(self._ask(command, timeout_s))
        except StopIteration as end:
            result: _T = end.value
            return result

    def _ask(self, command: v.ClientCommand, timeout_s: float) -> v.Answer:
        """Return the last answer to a command. How things stand is looked at however short the time is."""
        if self.is_closed:
            raise closed()
        if not self._turn.acquire(blocking=False):
            raise NotDone("this client waits for an answer in another thread", hint="make a client for each thread")
        last: v.Answer | None = None
        begin_s = time.monotonic()
        self._client.deadline_s = begin_s + max(timeout_s, limits.look_s)
        try:
            for answer in self._client.subscribe(lambda: command):
                last = answer
                self._client.deadline_s = begin_s + timeout_s
        finally:
            self._client.deadline_s = None
            self._turn.release()
        if last is None:
            raise ProtocolError("the server gave no answer")
        return last


class BlockingJob:
    """A job, or one task of it; see `Job`."""

    def __init__(self, client: BlockingClient, id: str, *, existed: bool = False, warning: str = "") -> None:  # noqa: A002
        self.id = id
        self.existed = existed
        self.warning = warning
        self._client = client

    def __repr__(self) -> str:
        return f"<BlockingJob {self.id}>"

    def state(self) -> str:
        """Return its state; see `Job.state`."""
        return self._client.follow(flows.peek(self.id))

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until all of its tasks have ended, however; see `Job.wait`."""
        seconds = flows.check_timeout(timeout_s)
        try:
            self._client.follow(flows.waiting(self.id), seconds)
        except TimedOut:
            raise flows.timed_out(self.id, timeout_s) from None

    def results(self, timeout_s: float | None = None) -> Iterator[TaskResult]:
        """Wait for its end, then yield how each task ended; see `Job.results`."""
        self.wait(timeout_s)
        place: str | None = ""
        while place is not None:
            found, following = self._client.follow(flows.page(self.id, place))
            yield from found
            place = following or None

    def result(self, timeout_s: float | None = None) -> Any:
        """Wait for its end, and return what it returned; see `Job.result`."""
        return flows.values(self.id, list(self.results(timeout_s)))

    def cancel(self) -> int:
        """Cancel what has not ended; see `Job.cancel`."""
        return self._client.follow(flows.cancelling(self.id))
