"""The public Python API, with trio: `import tq.client`, then `tq.client.connect`. docs/python.md shows it at work.

What goes wrong is a `tq.errors.TqError`: what the server refuses as what it is (BadRequest, KeyConflict, …), and
Unreachable or Unknown when a lost connection could not be re-made within the patience. An argument that there
is not is a TypeError, as everywhere.
"""

import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from math import inf
from typing import Any, TypeVar, Unpack

import trio

from tq.client import flows, requests, target
from tq.client.line import Line
from tq.client.requests import Options
from tq.client.results import TaskResult
from tq.core import vocabulary as v
from tq.errors import ConfigurationError, TimedOut

_T = TypeVar("_T")


@asynccontextmanager
async def connect(
    url: str = "", *, environ: Mapping[str, str] = os.environ, patience_s: float = 60.0
) -> AsyncIterator["Client"]:
    """Connect to a server for the length of the block: that of `url`, of TQ_URL, or the one that runs here.

    It is found, and its token, as the command line does (`tq config`). Raises Unreachable at once when nobody answers;
    a connection that is lost later is re-made for `patience_s` seconds, and what was asked is asked again.
    """
    _check_runs_trio()
    failure: BaseException | None = None  # of the block: a nursery would wrap it, and a group is no exit code
    async with trio.open_nursery() as nursery:
        line = Line(lambda: target.find({"url": url}, environ), patience_s=patience_s)
        try:
            await nursery.start(line.run)
            yield Client(line)
        except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001 - passed on below, not in a group
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


def _check_runs_trio() -> None:
    """Raise ConfigurationError under another event loop, where everything of trio's fails without a reason."""
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        raise ConfigurationError(
            "this client needs trio, which does not run here",
            hint="begin with trio.run; under asyncio use tq.client.connect_blocking in a thread (asyncio.to_thread)",
        ) from None


class Client:
    """A server to talk to, made by `connect`. Any number of trio's children may use it at once; 256 of them wait."""

    def __init__(self, line: Line) -> None:
        self._line = line

    async def submit(
        self, function: str, *args: Any, kwargs: Mapping[str, Any] | None = None, **options: Unpack[Options]
    ) -> "Job":
        """Submit one call of `"module:name"`, and return its job once that is on disk.

        `args` and `kwargs` are plain data (None, bool, int of 64 bits, float, str, bytes, list, dict by str), at most
        192 KiB; a tuple comes as a list. Raises BadRequest for what is not. Options: see `Options`.
        """
        return await self._submit(requests.function(function, args, kwargs or {}, options))

    async def map(
        self,
        function: str,
        items: Iterable[Any],
        *args: Any,
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[Options],
    ) -> "Job":
        """Submit one job with a task for each item: `function(*args, item, **kwargs)`.

        Items are plain data, each at most 120 KiB, and may come from a generator. Nothing runs before all of them are
        on disk. With the same `key`, an upload that was cut off goes on. Raises BadRequest when there are none.
        """
        request = requests.function_for_each(function, args, kwargs or {}, options)
        return await self._submit(request, items)

    async def submit_command(
        self,
        argv: Sequence[str | bytes | os.PathLike[str]],
        *,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        **options: Unpack[Options],
    ) -> "Job":
        """Submit a program with its arguments. Its value is the JSON that it writes to the file TQ_RESULT, if any.

        It runs in `cwd` (None: this directory), with the variables `env` beside the few that every task gets, and reads
        `stdin`, at most 64 KiB.
        """
        return await self._submit(requests.command(argv, cwd=cwd, env=env, stdin=stdin, options=options))

    def job(self, id: str) -> "Job":  # noqa: A002 - the word that everybody uses
        """Return a job or task by its id, without asking whether there is one."""
        return Job(self, requests.check_id(id))

    async def _submit(self, request: v.Submit, items: Iterable[Any] | None = None) -> "Job":
        submitted = await self.follow(flows.submitting(request, items))
        return Job(self, submitted.id, existed=submitted.existed, warning=submitted.warning)

    async def follow(self, flow: flows.Flow[_T], timeout_s: float = inf) -> _T:
        """Ask what a flow asks, until it returns. Raises TimedOut for an answer that takes longer."""
        try:
            command = next(flow)
            while True:
                command = flow.send(await self._line.ask(command, timeout_s))
        except StopIteration as end:
            result: _T = end.value
            return result


class Job:
    """A job, or one task of it. `id` is its id, for other programs, too (`client.job(id)`).

    `existed`: the key had made it before. `warning` says why nothing can run it now, "" when something can.
    """

    def __init__(self, client: Client, id: str, *, existed: bool = False, warning: str = "") -> None:  # noqa: A002
        self.id = id
        self.existed = existed
        self.warning = warning
        self._client = client

    def __repr__(self) -> str:
        return f"<Job {self.id}>"

    async def state(self) -> str:
        """Return its state as `tq show` says it; of an array the most alive of its tasks' states."""
        return await self._client.follow(flows.peek(self.id))

    async def wait(self, timeout_s: float | None = None) -> None:
        """Wait until all of its tasks have ended, however.

        Raises TimedOut, which is a TimeoutError, if they have not `timeout_s` later. Nothing is cancelled by that, and
        whoever waits again goes on; 0 looks how things stand.
        """
        seconds = flows.check_timeout(timeout_s)
        try:
            await self._client.follow(flows.waiting(self.id), seconds)
        except TimedOut:
            raise flows.timed_out(self.id, timeout_s) from None

    async def results(self, timeout_s: float | None = None) -> AsyncIterator[TaskResult]:
        """Wait as `wait` does, then yield how each task ended, in order; page by page, so that any number will do."""
        await self.wait(timeout_s)
        place: str | None = ""
        while place is not None:
            found, following = await self._client.follow(flows.page(self.id, place))
            for result in found:
                yield result
            place = following or None

    async def result(self, timeout_s: float | None = None) -> Any:
        """Wait as `wait` does, and return what it returned; of an array, a list of that, in order.

        Raises TaskFailed for the first task that failed, else TaskCancelled for the first that was cancelled.
        """
        return flows.values(self.id, [result async for result in self.results(timeout_s)])

    async def cancel(self) -> int:
        """Cancel what has not ended, and return how many tasks that were. Those that run are stopped."""
        return await self._client.follow(flows.cancelling(self.id))
