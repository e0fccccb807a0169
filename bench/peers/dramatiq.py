"""Dramatiq on Redis, results kept: two processes of one thread. With its usual prefetch of two they mostly sleep."""

import os
from functools import partial
from typing import Any

from peers import redis, stage


def noop() -> Any:
    """Return the actor, on the Redis that the environment names. The worker calls this, too."""
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker
    from dramatiq.results import Results
    from dramatiq.results.backends import RedisBackend

    url = os.environ["PEER_URL"]
    broker = RedisBroker(url=f"{url}/0")
    broker.add_middleware(Results(backend=RedisBackend(url=f"{url}/1")))
    dramatiq.set_broker(broker)
    return dramatiq.actor(store_results=True, actor_name="noop")(lambda: None)


def prepare(at: stage.Stage, *, has_worker: bool) -> tuple[Any, str]:
    url = os.environ["PEER_URL"] = redis.serve(at)
    if has_worker:
        command = (at.script("dramatiq"), "peers.dramatiq:noop", "--processes", str(stage.SLOTS), "--threads", "1")
        at.start(*command, dramatiq_queue_prefetch="64")
    return noop(), url


def submits(at: stage.Stage, count: int, connections: int) -> stage.Figures:
    actor, url = prepare(at, has_worker=False)
    return redis.submits(url, actor.send, count, connections)


def functions(at: stage.Stage, count: int) -> stage.Figures:
    actor, url = prepare(at, has_worker=True)

    def submit(size: int) -> None:
        for _ in range(size):
            actor.send()

    return redis.bulk(count, submit, redis.client(url, 1).dbsize)


def latency(at: stage.Stage, count: int) -> stage.Figures:
    actor, _ = prepare(at, has_worker=True)
    return stage.round_trips(count, lambda: actor.send().get_result(block=True))


PEER = stage.Peer(
    name="Dramatiq on Redis",
    durable=redis.DURABLE,
    captured="",
    workloads={
        "submits, 1 connection": (partial(submits, connections=1), 2_000),
        "submits, 64 connections": (partial(submits, connections=64), 6_400),
        "functions": (functions, 1_500),
        "function latency": (latency, 100),
    },
    programs=redis.PROGRAMS,
    debian=("redis-server",),
    pypi=("dramatiq[redis]",),
    versions=redis.VERSIONS,
)

if __name__ == "__main__":
    stage.main(PEER)
