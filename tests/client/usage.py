"""A program that uses every call of the Python API, as its types say: mypy reads it (pyproject.toml), nothing runs it.

What a user sees in an editor is what stands here without a cast and without a comment for mypy. test_usage.py looks
that no call is left out.
"""

import os
import signal
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, assert_type

import tq.client
from tq.client import (
    Acted,
    BlockingClient,
    BlockingJob,
    BlockingJobs,
    Client,
    CommandOptions,
    Job,
    Jobs,
    Options,
    Output,
    TaskCancelled,
    TaskFailed,
    TaskResult,
)
from tq.errors import TimedOut, TqError

usual: Options = {
    "name": "n", "tags": {"a"}, "queue": "q", "priority": 1, "retries": 0, "crash_limit": 0, "backoff_s": (1, 2.5),
    "retry_on": [75, signal.SIGKILL], "no_retry_on": (1,), "time_limit_s": 1, "stop_signal": signal.SIGINT,
    "kill_after_s": 0.5, "if_cut": "stop", "cpus": 0.5, "hold": True, "key": "k", "trace": "",
}  # fmt: skip
of_arrays: Options = {**usual, "max_fails": 3, "at_once": 2}
of_commands: CommandOptions = {
    **usual, "cwd": Path(), "env": os.environ, "stdin": b"", "tmpdir": True, "stdout": "out", "stderr": Path("err"),
}  # fmt: skip


def items() -> Iterator[dict[str, int]]:
    yield {"n": 1}


async def submits(client: Client) -> None:
    job = await client.submit("m:f", 1, [2], kwargs={"b": None}, **usual)
    assert_type(job, Job)
    assert_type((job.id, job.existed, job.warning), tuple[str, bool, str])
    await client.map("m:f", items(), 1, kwargs={}, **of_arrays)
    await client.submit_command(["make", b"-j", Path()], **of_commands)
    await client.map_command(["flac", "{}"], [Path("a"), "b", b"c"], at_once=3, retry_on=[signal.SIGTERM])


async def looks(client: Client, job: Job) -> None:
    assert_type(await job.result(timeout_s=5), Any)
    await job.wait(0.5)
    async for result in job.as_completed(timeout_s=5):
        assert_type(result, TaskResult)
    async for one in client.as_completed([job], timeout_s=5):
        assert_type(one, Job)
    assert_type(await client.wait_any({job}, 5), Job)
    async for result in job.results():
        assert_type(result, TaskResult)
        assert_type(result.error, TaskFailed | TaskCancelled | None)
        assert_type((result.id, result.state, result.attempt), tuple[str, str, int])
        assert_type(result.number, int)
        assert_type(result.get(), Any)
    assert_type(await job.state(), str)
    assert_type(await job.show(), dict[str, Any])
    async with aclosing(job.logs(follow=True, attempt=2)) as pieces:
        async for piece in pieces:
            assert_type(piece, Output)
            assert_type((piece.task, piece.attempt, piece.stream, piece.data), tuple[str, int, str, bytes])
    assert_type(client.workers(), AsyncGenerator[dict[str, Any], None])
    async for document in client.queues():
        assert_type(document["id"], Any)
    assert_type(await client.status(), dict[str, Any])
    async for document in client.jobs(state=["queued", "running"], queue="q", tag="t", name="n"):
        assert_type(client.job(document["id"]), Job)


async def acts(client: Client, job: Job) -> None:
    jobs = client.dead_letters(cause="lost", queue="q", tag="t", name="n")
    assert_type(jobs, Jobs)
    for one in (job, jobs, client.jobs(state="failed")):
        assert_type(await one.cancel(), Acted)
        held: int = await one.hold()
        assert_type((held, (await one.hold()).goes_on), tuple[int, bool])
        await one.release()
        await one.requeue()
        await one.retry(force=True)
        await one.set_priority(5)
        await one.set_at_once(5)
        await one.purge()
        await one.forget()
    await client.set_queue("q", paused=True, at_once=3, retries=-1, new=True)
    await client.drain("w1", deadline_s=60)
    await client.undrain("w1")


async def connects() -> None:
    async with tq.client.connect("tq://localhost:1", environ=os.environ, patience_s=5) as client:
        assert_type(client, Client)
        await submits(client)
        job = client.job("43.7")
        try:
            await looks(client, job)
        except TaskFailed as failed:
            assert_type((failed.id, failed.cause, failed.type), tuple[str, str, str])
            assert_type((failed.text, failed.traceback), tuple[str, str])
            assert_type((failed.exit_code, failed.signal), tuple[int | None, int | None])
        except TaskCancelled as cancelled:
            assert_type(cancelled.state, str)
        except TimedOut as late:
            assert_type(late.hint, str)
        except TqError as error:
            assert_type(error.message, str)
        await acts(client, job)


def blocking_submits(client: BlockingClient) -> None:
    job = client.submit("m:f", 1, [2], kwargs={"b": None}, **usual)
    assert_type(job, BlockingJob)
    assert_type((job.id, job.existed, job.warning), tuple[str, bool, str])
    client.map("m:f", items(), 1, kwargs={}, **of_arrays)
    client.submit_command(["make", b"-j", Path()], **of_commands)
    client.map_command(["flac", "{}"], [Path("a"), "b", b"c"], at_once=3, retry_on=[signal.SIGTERM])


def blocking_looks(client: BlockingClient, job: BlockingJob) -> None:
    assert_type(job.result(timeout_s=5), Any)
    job.wait(0.5)
    for result in job.as_completed(timeout_s=5):
        assert_type(result, TaskResult)
    for one in client.as_completed([job], timeout_s=5):
        assert_type(one, BlockingJob)
    assert_type(client.wait_any({job}, 5), BlockingJob)
    for result in job.results():
        assert_type(result, TaskResult)
    assert_type(job.state(), str)
    assert_type(job.show(), dict[str, Any])
    for piece in job.logs(follow=True, attempt=2):
        assert_type(piece, Output)
    assert_type(client.workers(), Iterator[dict[str, Any]])
    for document in client.queues():
        assert_type(document["id"], Any)
    assert_type(client.status(), dict[str, Any])
    for document in client.jobs(state=["queued", "running"], queue="q", tag="t", name="n"):
        assert_type(client.job(document["id"]), BlockingJob)


def blocking_acts(client: BlockingClient, job: BlockingJob) -> None:
    jobs = client.dead_letters(cause="lost", queue="q", tag="t", name="n")
    assert_type(jobs, BlockingJobs)
    for one in (job, jobs, client.jobs(state="failed")):
        assert_type(one.cancel(), Acted)
        held: int = one.hold()
        assert_type((held, one.hold().goes_on), tuple[int, bool])
        one.release()
        one.requeue()
        one.retry(force=True)
        one.set_priority(5)
        one.set_at_once(5)
        one.purge()
        one.forget()
    client.set_queue("q", paused=True, at_once=3, retries=-1, new=True)
    client.drain("w1", deadline_s=60)
    client.undrain("w1")


def blocking_connects() -> None:
    with tq.client.connect_blocking("tq://localhost:1", environ=os.environ, patience_s=5) as client:
        assert_type(client, BlockingClient)
        blocking_submits(client)
        blocking_looks(client, client.job("43.7"))
        blocking_acts(client, client.job("43.7"))
    client.close()
