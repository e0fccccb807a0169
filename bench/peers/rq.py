"""RQ on Redis: two workers, each of which forks for every job, as it does unless told otherwise."""

import operator
from functools import partial
from typing import Any

from peers import redis, stage


def prepare(at: stage.Stage, *, has_worker: bool) -> tuple[Any, str]:
    from rq import Queue

    url = redis.serve(at)
    for _ in range(stage.SLOTS if has_worker else 0):
        at.start(at.script("rq"), "worker", "--url", url, "--quiet")
    return Queue(connection=redis.client(url)), url


def submits(at: stage.Stage, count: int, connections: int) -> stage.Figures:
    queue, url = prepare(at, has_worker=False)
    return redis.submits(url, lambda: queue.enqueue(operator.not_, 1), count, connections)


def functions(at: stage.Stage, count: int) -> stage.Figures:
    from rq.registry import FinishedJobRegistry

    queue, _ = prepare(at, has_worker=True)
    finished = FinishedJobRegistry(queue=queue)

    def submit(size: int) -> None:
        queue.enqueue_many([queue.prepare_data(operator.not_, (1,)) for _ in range(size)])

    return redis.bulk(count, submit, lambda: finished.connection.zcard(finished.key))


def latency(at: stage.Stage, count: int) -> stage.Figures:
    queue, _ = prepare(at, has_worker=True)
    return stage.round_trips(count, lambda: queue.enqueue(operator.not_, 1).latest_result(timeout=10))


PEER = stage.Peer(
    name="RQ on Redis",
    durable=redis.DURABLE,
    captured="",
    workloads={
        "submits, 1 connection": (partial(submits, connections=1), 2_000),
        "submits, 64 connections": (partial(submits, connections=64), 3_200),
        "functions": (functions, 150),
        "function latency": (latency, 50),
    },
    programs=redis.PROGRAMS,
    debian=("redis-server",),
    pypi=("rq",),
    versions=redis.VERSIONS,
)

if __name__ == "__main__":
    stage.main(PEER)
