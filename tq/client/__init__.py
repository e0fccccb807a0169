"""How a program talks to a server: `target` finds it, `blocking` asks it, and this is for programs of others.

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
    from tq.client.direct import BlockingClient, BlockingJob, BlockingJobs, connect_blocking
    from tq.client.flows import Acted
    from tq.client.reading import Output
    from tq.client.requests import CommandOptions, Options
    from tq.client.results import TaskCancelled, TaskFailed, TaskResult

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
    "Acted": "flows",
    "BlockingClient": "direct",
    "BlockingJob": "direct",
    "BlockingJobs": "direct",
    "Client": "api",
    "CommandOptions": "requests",
    "Job": "api",
    "Jobs": "api",
    "Options": "requests",
    "Output": "reading",
    "TaskCancelled": "results",
    "TaskFailed": "results",
    "TaskResult": "results",
    "connect": "api",
    "connect_blocking": "direct",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"tq.client.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    """Return what `help` shows and Tab completes, loaded or not."""
    return [*globals(), *__all__]
