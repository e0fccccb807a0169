"""The public Python API, with trio: `import tq.client`, then `tq.client.connect`. docs/python.md shows it at work.

What goes wrong is a `tq.errors.TqError`: what the server refuses as what it is (BadRequest, KeyConflict, …), and
Unreachable or Unknown when a lost connection could not be re-made within the patience. An argument that there
is no is a TypeError, as everywhere.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Unpack

import trio

from tq.client import target
from tq.client.drivers.asker import Asker
from tq.client.drivers.connection import Line
from tq.client.sansio import dialogues, requests, validate
from tq.client.sansio.as_completed import JobEnds, TaskEnds, no_jobs, together
from tq.client.sansio.dialogues import Acted, Acts, Document
from tq.client.sansio.reading import Output, Reading
from tq.client.sansio.requests import CommandOptions, Options, Word
from tq.client.sansio.results import TaskResult
from tq.core import vocabulary as v
from tq.errors import ConfigurationError


@asynccontextmanager
async def connect(
    url: str = "", *, environ: Mapping[str, str] | None = None, patience_s: float = 60.0
) -> AsyncIterator["Client"]:
    """Connect to a server for the length of the block: that of `url`, of TQ_URL, or the one that runs here.

    It is found, and its token, as the command line does (`tq config`). Raises Unreachable at once when nobody answers;
    a connection that is lost later is re-made for `patience_s` seconds, and what was asked is asked again. `environ` is
    read instead of this process's environment.
    """
    _check_runs_trio()
    failure: BaseException | None = None  # of the block: a nursery would wrap it, and a group is not an exit code
    async with trio.open_nursery() as nursery:
        line = Line(lambda: target.find({"url": url}, environ), patience_s=patience_s)
        try:
            await nursery.start(line.run)
            yield Client(Asker(line))
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
    """A server to talk to, made by `connect`. Any number of trio's children may use it at once; 256 of them wait.

    What looks (`jobs`, `workers`, `status`, `Job.show`, …) gives documents: dicts with the keys and values of
    `-o json`. Times are text as in "2026-01-31T12:00:00.123Z", durations seconds, ids text.
    """

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    async def submit(
        self, function: str, *args: Any, kwargs: Mapping[str, Any] | None = None, **options: Unpack[Options]
    ) -> "Job":
        """Submit one call of `"module:name"`, and return its job once that is on disk.

        `args` and `kwargs` are plain data (None, bool, int of 64 bits, float, str, bytes, list, dict by str), at most
        192 KiB; a tuple comes as a list. Raises BadRequest for what is not. Options: see `Options`.
        """
        return await self._submit(requests.function(function, args, kwargs, options))

    async def map(
        self,
        function: str,
        items: Iterable[Any],
        *args: Any,
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[Options],
    ) -> "Job":
        """Submit one job with a task for each item: `function(*args, item, **kwargs)`.

        Items are plain data, each at most 120 KiB, and may come from a generator: any number of them takes little
        memory. Nothing runs before all of them are on disk. With the same `key`, an upload that was cut off goes on
        where it was. Raises BadRequest when there are none.
        """
        return await self._submit(requests.function_for_each(function, args, kwargs, options, items))

    async def submit_command(self, argv: Sequence[Word], **options: Unpack[CommandOptions]) -> "Job":
        """Submit a program with its arguments. Its value is the JSON that it writes to the file TQ_RESULT, if any.

        Options: see `CommandOptions`.
        """
        return await self._submit(requests.command(argv, options))

    async def map_command(
        self, argv: Sequence[Word], items: Iterable[Word], **options: Unpack[CommandOptions]
    ) -> "Job":
        """Submit one job with a run of a program for each item: in its arguments `{}` stands for that, `{#}` for the
        task's number; TQ_ENTRY has the item, too. Items are as those of `map`, but text.
        """
        return await self._submit(requests.command_for_each(argv, options, items))

    async def _submit(self, asked: requests.Asked) -> "Job":
        submitted, asker = await self._asker.submit(asked)
        return Job(asker, submitted.id, existed=submitted.existed, warning=submitted.warning)

    def job(self, id: str) -> "Job":  # noqa: A002 - the word that everybody uses
        """Return a job or task by its id, without asking whether there is one."""
        return Job(self._asker.here(), requests.check_id(id))

    def as_completed(self, jobs: "Iterable[Job]", timeout_s: float | None = None) -> AsyncGenerator["Job", None]:
        """Yield these jobs as they end, each once, until all have; what has ended already comes first.

        At most 10,000 of them (TooLarge), of one server: `map` makes one job of millions of tasks. Raises TimedOut if
        not all have ended `timeout_s` later.
        """
        waited, lineage = together(jobs, Job)
        return self._asker.of(lineage).watch(JobEnds(waited), validate.seconds(timeout_s))

    async def wait_any(self, jobs: "Iterable[Job]", timeout_s: float | None = None) -> "Job":
        """Wait until one of these jobs has ended, and return it.

        Raises TimedOut, which is a TimeoutError, if none has `timeout_s` later; 0 looks how things stand.
        """
        async with aclosing(self.as_completed(jobs, timeout_s)) as ended:
            async for job in ended:
                return job
        raise no_jobs()

    def jobs(
        self,
        *,
        state: str | Sequence[str] | None = None,
        queue: str | None = None,
        tag: str | None = None,
        name: str | None = None,
    ) -> "Jobs":
        """Return the jobs that match all of this, to look at (newest first) or to act on; without a filter all.

        `state`: those with a task in it, or in one of several (`"failed"` is dead or expired); then it is those tasks
        that are acted on.
        """
        return Jobs(self._asker, dialogues.where({"state": state, "queue": queue, "tag": tag, "name": name}))

    def dead_letters(
        self, *, cause: str | None = None, queue: str | None = None, tag: str | None = None, name: str | None = None
    ) -> "Jobs":
        """Return the tasks that gave up and match all of this, to look at (oldest first), `retry` or `purge`.

        `cause` is why, as `TaskFailed.cause`.
        """
        filters = {"cause": cause, "queue": queue, "tag": tag, "name": name}
        return Jobs(self._asker, dialogues.where(filters, is_letter=True))

    def workers(self) -> AsyncGenerator[Document, None]:
        """Yield the connected workers, with their state, slots and queues (`tq workers -o json`)."""
        return self._asker.each(dialogues.every(v.Workers))

    def queues(self) -> AsyncGenerator[Document, None]:
        """Yield the queues that have tasks or settings, with counts of tasks by state (`tq queue ls -o json`)."""
        return self._asker.each(dialogues.every(v.Queues))

    async def set_queue(
        self,
        name: str,
        *,
        paused: bool | None = None,
        at_once: int | None = None,
        retries: int | None = None,
        new: bool = False,
    ) -> None:
        """Pause a queue or let it go on; bound how many of its tasks run at once (0: no bound); say how often they are
        tried again whose job does not say (-1: as the server says). What is None stays.

        Raises TaskNotFound for a queue that has no tasks, settings or workers yet, unless it may be `new`.
        """
        await self._asker.follow(dialogues.setting(name, paused, at_once, retries, new=new))

    async def drain(self, worker: str, *, deadline_s: float | None = None) -> None:
        """Have a worker, named by id or host, start nothing more. What runs there may end within `deadline_s` seconds
        (None: to its end), then it is stopped and given to others. Raises TaskNotFound if there is no such worker.
        """
        await self._asker.follow(dialogues.draining(worker, on=True, deadline_s=deadline_s))

    async def undrain(self, worker: str) -> None:
        """Let a drained worker go on, and one that is quarantined try again at once."""
        await self._asker.follow(dialogues.draining(worker, on=False))

    async def status(self) -> Document:
        """Return how the server is doing: tasks by state, workers, slots, and what stands still and why."""
        return await self._asker.follow(dialogues.showing(v.Status()))


class Jobs(Acts[Coroutine[Any, Any, Acted]]):
    """The jobs, or dead letters, that a filter means; made by `Client.jobs` and `Client.dead_letters`.

    `async for` yields their documents. Each verb acts on all that match when it comes to them, however many.
    """

    def __init__(self, asker: Asker, where: v.Where) -> None:
        super().__init__(asker.follow, where=where)
        self._asker = asker
        self._pages = dialogues.jobs(where)

    def __aiter__(self) -> AsyncIterator[Document]:
        return self._asker.each(self._pages)


class Job(Acts[Coroutine[Any, Any, Acted]]):
    """A job, or one task of it. `id` is its id, for other programs, too (`client.job(id)`).

    `existed`: the key had made it before. `warning` says why nothing can run it now, or that it was forgotten since; ""
    where there is nothing to say. Where the server has come back with another store than the one that it is of,
    whatever is asked of it raises TaskNotFound.
    """

    def __init__(self, asker: Asker, id: str, *, existed: bool = False, warning: str = "") -> None:  # noqa: A002
        super().__init__(asker.follow, (id,))
        self._asker = asker
        self.id = id
        self.existed = existed
        self.warning = warning

    @property
    def lineage(self) -> int:
        """The name of the store that it is of: a number."""
        return self._asker.lineage

    def __repr__(self) -> str:
        return f"<Job {self.id}{self.warning and f': {self.warning}'}>"

    async def state(self) -> str:
        """Return its state as `tq show` says it; of an array the most alive of its tasks' states."""
        return str((await self.show())["state"])

    async def show(self) -> Document:
        """Return everything about it (`tq show -o json`). Raises TaskNotFound if there is no such job or task."""
        return await self._asker.follow(dialogues.showing(v.Get(self.id)))

    async def wait(self, timeout_s: float | None = None) -> None:
        """Wait until all of its tasks have ended, however.

        Raises TimedOut, which is a TimeoutError, if they have not `timeout_s` later. Nothing is cancelled by that, and
        whoever waits again goes on; 0 looks how things stand.
        """
        await self._asker.follow(dialogues.waiting(self.id, timeout_s), validate.seconds(timeout_s))

    async def results(self, timeout_s: float | None = None) -> AsyncGenerator[TaskResult, None]:
        """Wait as `wait` does, then yield how each task ended, in order; page by page, so that any number will do."""
        await self.wait(timeout_s)
        async with aclosing(self._asker.each(dialogues.results(self.id))) as results:
            async for result in results:
                yield result

    def as_completed(self, timeout_s: float | None = None) -> AsyncGenerator[TaskResult, None]:
        """Yield how each task ended, as they end and each once, until all have; what has ended already comes first.

        Millions of tasks take little memory, and a restart of the server is not seen. Raises TimedOut if not all have
        ended `timeout_s` later; who asks again is told all again.
        """
        return self._asker.watch(TaskEnds(self.id), validate.seconds(timeout_s))

    async def result(self, timeout_s: float | None = None) -> Any:
        """Wait as `wait` does, and return what it returned; of an array, a list of that, in order.

        Raises TaskFailed for the first task that failed, else TaskCancelled for the first that was cancelled.
        """
        return dialogues.values(self.id, [result async for result in self.results(timeout_s)])

    def logs(self, *, follow: bool = False, attempt: int = 0) -> AsyncGenerator[Output, None]:
        """Yield what it has written, piece by piece in the order in which it is stored; of an array name one task.

        With `follow` also what comes, until the task has ended, through all its attempts; `attempt` is one of them
        (0: the latest). At most 16 are read at once over one client. Raises TaskNotFound, BadRequest.
        """
        return self._asker.read(Reading(self.id, attempt=dialogues.check_attempt(attempt), is_following=follow))
