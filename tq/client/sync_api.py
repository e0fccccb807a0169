"""The public Python API without trio: as api.py, call for call, over blocking connections; any thread may ask.

Written out, since only a signature tells an editor and mypy what a call takes and whether it is awaited. What both do
stands once, in client/sansio/dialogues.py, client/sansio/dialogues.py, client/sansio/as_completed.py and
client/sansio/requests.py.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self, Unpack

from tq.client import target
from tq.client.drivers import blocking
from tq.client.drivers.sync_asker import DirectAsker, Pool
from tq.client.sansio import dialogues, requests, validate
from tq.client.sansio.as_completed import JobEnds, TaskEnds, no_jobs, together
from tq.client.sansio.dialogues import Acted, Acts, Document
from tq.client.sansio.reading import Output, Reading
from tq.client.sansio.requests import CommandOptions, Options, Word
from tq.client.sansio.results import TaskResult
from tq.core import vocabulary as v


def connect_blocking(
    url: str = "", *, environ: Mapping[str, str] | None = None, patience_s: float = 60.0
) -> "BlockingClient":
    """Connect to a server for the length of a block, or until `close`; see `connect`."""
    client = blocking.Client(lambda: target.find({"url": url}, environ), patience_s=patience_s)
    client.connect()
    return BlockingClient(Pool(client))


class BlockingClient:
    """A server to talk to, made by `connect_blocking`; see `Client`. Any number of threads may use it at once."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._asker = DirectAsker(pool)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, as the end of a block does. Whoever asks later is told so (Unreachable).

        What other threads wait for then goes on to its end.
        """
        self._pool.close()

    def submit(
        self, function: str, *args: Any, kwargs: Mapping[str, Any] | None = None, **options: Unpack[Options]
    ) -> "BlockingJob":
        """Submit one call of `"module:name"`; see `Client.submit`."""
        return self._submit(requests.function(function, args, kwargs, options))

    def map(
        self,
        function: str,
        items: Iterable[Any],
        *args: Any,
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[Options],
    ) -> "BlockingJob":
        """Submit one job with a task for each item; see `Client.map`."""
        return self._submit(requests.function_for_each(function, args, kwargs, options, items))

    def submit_command(self, argv: Sequence[Word], **options: Unpack[CommandOptions]) -> "BlockingJob":
        """Submit a program with its arguments; see `Client.submit_command`."""
        return self._submit(requests.command(argv, options))

    def map_command(
        self, argv: Sequence[Word], items: Iterable[Word], **options: Unpack[CommandOptions]
    ) -> "BlockingJob":
        """Submit one job with a run of a program for each item; see `Client.map_command`."""
        return self._submit(requests.command_for_each(argv, options, items))

    def _submit(self, asked: requests.Asked) -> "BlockingJob":
        submitted, asker = self._asker.submit(asked)
        return BlockingJob(asker, submitted.id, existed=submitted.existed, warning=submitted.warning)

    def job(self, id: str) -> "BlockingJob":  # noqa: A002 - the word that everybody uses
        """Return a job or task by its id, without asking whether there is one."""
        return BlockingJob(self._asker.here(), requests.check_id(id))

    def as_completed(self, jobs: "Iterable[BlockingJob]", timeout_s: float | None = None) -> "Iterator[BlockingJob]":
        """Yield these jobs as they end, each once, until all have; see `Client.as_completed`."""
        waited, lineage = together(jobs, BlockingJob)
        return self._asker.of(lineage).watch(JobEnds(waited), validate.seconds(timeout_s))

    def wait_any(self, jobs: "Iterable[BlockingJob]", timeout_s: float | None = None) -> "BlockingJob":
        """Wait until one of these jobs has ended, and return it; see `Client.wait_any`."""
        for job in self.as_completed(jobs, timeout_s):
            return job
        raise no_jobs()

    def jobs(
        self,
        *,
        state: str | Sequence[str] | None = None,
        queue: str | None = None,
        tag: str | None = None,
        name: str | None = None,
    ) -> "BlockingJobs":
        """Return the jobs that match, to look at or to act on; see `Client.jobs`."""
        return BlockingJobs(self._asker, dialogues.where({"state": state, "queue": queue, "tag": tag, "name": name}))

    def dead_letters(
        self, *, cause: str | None = None, queue: str | None = None, tag: str | None = None, name: str | None = None
    ) -> "BlockingJobs":
        """Return the dead letters that match, to look at, `retry` or `purge`; see `Client.dead_letters`."""
        filters = {"cause": cause, "queue": queue, "tag": tag, "name": name}
        return BlockingJobs(self._asker, dialogues.where(filters, is_letter=True))

    def workers(self) -> Iterator[Document]:
        """Yield the connected workers; see `Client.workers`."""
        return self._asker.each(dialogues.every(v.Workers))

    def queues(self) -> Iterator[Document]:
        """Yield the queues that have tasks or settings; see `Client.queues`."""
        return self._asker.each(dialogues.every(v.Queues))

    def set_queue(
        self,
        name: str,
        *,
        paused: bool | None = None,
        at_once: int | None = None,
        retries: int | None = None,
        new: bool = False,
    ) -> None:
        """Pause a queue or let it go on, or bound it; see `Client.set_queue`."""
        self._asker.follow(dialogues.setting(name, paused, at_once, retries, new=new))

    def drain(self, worker: str, *, deadline_s: float | None = None) -> None:
        """Have a worker start nothing more; see `Client.drain`."""
        self._asker.follow(dialogues.draining(worker, on=True, deadline_s=deadline_s))

    def undrain(self, worker: str) -> None:
        """Let a drained worker go on, and one that is quarantined try again at once."""
        self._asker.follow(dialogues.draining(worker, on=False))

    def status(self) -> Document:
        """Return how the server is doing; see `Client.status`."""
        return self._asker.follow(dialogues.showing(v.Status()))


class BlockingJobs(Acts[Acted]):
    """The jobs, or dead letters, that a filter means; see `Jobs`."""

    def __init__(self, asker: DirectAsker, where: v.Where) -> None:
        super().__init__(asker.follow, where=where)
        self._asker = asker
        self._pages = dialogues.jobs(where)

    def __iter__(self) -> Iterator[Document]:
        return self._asker.each(self._pages)


class BlockingJob(Acts[Acted]):
    """A job, or one task of it; see `Job`."""

    def __init__(self, asker: DirectAsker, id: str, *, existed: bool = False, warning: str = "") -> None:  # noqa: A002
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
        return f"<BlockingJob {self.id}{self.warning and f': {self.warning}'}>"

    def state(self) -> str:
        """Return its state; see `Job.state`."""
        return str(self.show()["state"])

    def show(self) -> Document:
        """Return everything about it; see `Job.show`."""
        return self._asker.follow(dialogues.showing(v.Get(self.id)))

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until all of its tasks have ended, however; see `Job.wait`."""
        self._asker.follow(dialogues.waiting(self.id, timeout_s), validate.seconds(timeout_s))

    def results(self, timeout_s: float | None = None) -> Iterator[TaskResult]:
        """Wait for its end, then yield how each task ended; see `Job.results`."""
        self.wait(timeout_s)
        yield from self._asker.each(dialogues.results(self.id))

    def as_completed(self, timeout_s: float | None = None) -> Iterator[TaskResult]:
        """Yield how each task ended, as they end and each once, until all have; see `Job.as_completed`."""
        return self._asker.watch(TaskEnds(self.id), validate.seconds(timeout_s))

    def result(self, timeout_s: float | None = None) -> Any:
        """Wait for its end, and return what it returned; see `Job.result`."""
        return dialogues.values(self.id, list(self.results(timeout_s)))

    def logs(self, *, follow: bool = False, attempt: int = 0) -> Iterator[Output]:
        """Yield what it has written, piece by piece; see `Job.logs`."""
        return self._asker.read(Reading(self.id, attempt=dialogues.check_attempt(attempt), is_following=follow))
