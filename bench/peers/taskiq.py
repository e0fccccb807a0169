"""taskiq on Redis streams, which are acknowledged, results kept. Two processes of one task at a time."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

from peers import redis, stage


def broker() -> Any:
    """Return the broker, on the Redis that the environment names. The worker calls this, too."""
    from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

    url = os.environ["PEER_URL"]
    made = RedisStreamBroker(f"{url}/0").with_result_backend(RedisAsyncResultBackend(f"{url}/1"))
    made.register_task(noop, task_name="noop")
    return made


async def noop() -> None:
    """Do nothing."""


def perform(at: stage.Stage, work: Callable[[Any], Awaitable[stage.Figures]]) -> stage.Figures:
    """Call `work` with the task, while a server and two workers run."""
    os.environ["PEER_URL"] = redis.serve(at)
    at.start(
        *(at.script("taskiq"), "worker", "peers.taskiq:broker", "--workers", str(stage.SLOTS)),
        *("--max-async-tasks", "1", "--max-prefetch", "16", "--log-level", "WARNING"),
    )

    async def run() -> stage.Figures:
        made = broker()
        await made.startup()
        try:
            return await work(made.find_task("noop"))
        finally:
            await made.shutdown()

    return asyncio.run(run())


def functions(at: stage.Stage, count: int) -> stage.Figures:
    async def work(task: Any) -> stage.Figures:
        ended = redis.client(os.environ["PEER_URL"], 1).dbsize
        answer = {}
        for size in (20, count):
            before, begin = ended(), stage.now()
            await asyncio.gather(*(task.kiq() for _ in range(size)))
            await asyncio.to_thread(stage.until, lambda done=before + size: ended() >= done)
            answer = stage.rate(size, begin)
        return answer

    return perform(at, work)


def latency(at: stage.Stage, count: int) -> stage.Figures:
    async def work(task: Any) -> stage.Figures:
        took_ms = []
        for _ in range(count + stage.WARM):
            begin = stage.now()
            await (await task.kiq()).wait_result(check_interval=0.001, timeout=10)
            took_ms.append((stage.now() - begin) * 1_000)
        return stage.latency(took_ms[stage.WARM :])

    return perform(at, work)


PEER = stage.Peer(
    name="taskiq on Redis",
    durable=redis.DURABLE,
    captured="",
    workloads={"functions": (functions, 1_000), "function latency": (latency, 100)},
    programs=redis.PROGRAMS,
    debian=("redis-server",),
    pypi=("taskiq", "taskiq-redis"),
    versions=redis.VERSIONS,
)

if __name__ == "__main__":
    stage.main(PEER)
