"""HOW A PROGRAM TALKS TO A SERVER: `target` finds it, `api` and `sync_api` ask it.

It owns the public names of the Python API, which stand here. It never imports the server or the worker.

    async with tq.client.connect() as client:            # with trio
        job = await client.submit("images:thumbnail", "in.png", 128)
        size = await job.result()

    with tq.client.connect_blocking() as client:         # without
        size = client.submit("images:thumbnail", "in.png", 128).result()

Nothing is loaded before it is named: importing this costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tq.client.api import Client, Job, Jobs, connect
    from tq.client.sansio.dialogues import Acted
    from tq.client.sansio.reading import Output
    from tq.client.sansio.requests import CommandOptions, Options
    from tq.client.sansio.results import TaskCancelled, TaskFailed, TaskResult
    from tq.client.sync_api import BlockingClient, BlockingJob, BlockingJobs, connect_blocking

__all__ = [
    "Acted",
    "BlockingClient",
    "BlockingJob",
    "BlockingJobs",
    "Client",
    "CommandOptions",
    "Job",
    "Jobs",
    "Options",
    "Output",
    "TaskCancelled",
    "TaskFailed",
    "TaskResult",
    "connect",
    "connect_blocking",
]

_PLACES = {
    "Acted": "sansio.dialogues",
    "BlockingClient": "sync_api",
    "BlockingJob": "sync_api",
    "BlockingJobs": "sync_api",
    "Client": "api",
    "CommandOptions": "sansio.requests",
    "Job": "api",
    "Jobs": "api",
    "Options": "sansio.requests",
    "Output": "sansio.reading",
    "TaskCancelled": "sansio.results",
    "TaskFailed": "sansio.results",
    "TaskResult": "sansio.results",
    "connect": "api",
    "connect_blocking": "sync_api",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"tq.client.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    """Return what `help` shows and Tab completes, loaded or not."""
    return [*globals(), *__all__]
