"""Celery on Redis, results kept, acknowledged after the work, as a queue that loses nothing needs it."""

import os
from typing import Any

from peers import redis, stage


def app() -> Any:
    """Return the application, on the Redis that the environment names."""
    from celery import Celery

    url = os.environ["PEER_URL"]
    made = Celery("peer", broker=f"{url}/0", backend=f"{url}/1")
    made.conf.update(task_acks_late=True, worker_hijack_root_logger=False)
    made.task(noop, name="noop")
    return made


def noop() -> None:
    """Do nothing."""


def prepare(at: stage.Stage) -> tuple[Any, str]:
    url = os.environ["PEER_URL"] = redis.serve(at)
    command = (at.script("celery"), "-A", "peers.celery:made", "worker", "--concurrency", str(stage.SLOTS))
    at.start(*command, "--loglevel", "WARNING", "--without-gossip", "--without-mingle")
    return app().tasks["noop"], url


def __getattr__(name: str) -> Any:
    """Return `made`: the worker looks for an application by the name of an attribute."""
    if name == "made":
        return app()
    raise AttributeError(name)


def functions(at: stage.Stage, count: int) -> stage.Figures:
    task, url = prepare(at)

    def submit(size: int) -> None:
        for _ in range(size):
            task.delay()

    return redis.bulk(count, submit, redis.client(url, 1).dbsize)


def latency(at: stage.Stage, count: int) -> stage.Figures:
    task, _ = prepare(at)
    return stage.round_trips(count, lambda: task.delay().get(timeout=10))


PEER = stage.Peer(
    name="Celery on Redis",
    durable=redis.DURABLE,
    captured="",
    workloads={"functions": (functions, 500), "function latency": (latency, 50)},
    programs=redis.PROGRAMS,
    debian=("redis-server",),
    pypi=("celery[redis]",),
    versions=redis.VERSIONS,
)

if __name__ == "__main__":
    stage.main(PEER)
