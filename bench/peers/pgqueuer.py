"""pgqueuer on PostgreSQL: a commit that is synced for each submit; what ended is buffered for up to 0.1 s.

Its submits go through its own client, since what is said to PostgreSQL cannot be prepared: that client's work counts.
"""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any

from peers import stage

USER = "nobody" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
BATCH = 100


def serve(at: stage.Stage) -> str:
    """Start a PostgreSQL on a directory of its own, and return its address."""
    port, data = stage.free_port(), at.directory / "pg"
    data.mkdir()
    if USER:
        at.directory.chmod(0o711)
        shutil.chown(data, USER)
    initdb = ["initdb", "-D", str(data), "-A", "trust", "-U", "peer", "--no-sync"]
    subprocess.run(initdb, check=True, capture_output=True, user=USER, cwd="/", env={"PATH": stage.PATH})
    at.serve(
        port,
        *("postgres", "-D", str(data), "-p", str(port), "-h", "127.0.0.1"),
        *("-c", f"unix_socket_directories={data}", "-c", "fsync=on", "-c", "synchronous_commit=on"),
        user=USER,
    )
    return f"postgresql://peer@127.0.0.1:{port}/postgres"


async def connect(url: str) -> Any:
    import asyncpg
    from pgqueuer.db import AsyncpgDriver

    while True:
        try:
            return AsyncpgDriver(await asyncpg.connect(url))
        except asyncpg.CannotConnectNowError:
            await asyncio.sleep(0.05)


def perform(at: stage.Stage, work: Callable[[Any, Any, str], Awaitable[stage.Figures]], *, workers: int = 0) -> Any:
    """Call `work` with a driver, its queries and the address, while a server and workers run."""
    from pgqueuer.queries import Queries

    async def run() -> stage.Figures:
        url = serve(at)
        driver = await connect(url)
        queries = Queries(driver)
        await queries.install()
        for _ in range(workers):
            at.start(sys.executable, "-P", "-m", "peers.pgqueuer", "worker", url)
        return await work(driver, queries, url)

    return asyncio.run(run())


async def worker(url: str) -> None:
    """Run no-ops until told to end."""
    from pgqueuer import PgQueuer

    queue = PgQueuer(await connect(url))

    @queue.entrypoint("noop")
    async def noop(_: Any) -> None:
        pass

    await queue.run(batch_size=BATCH, dequeue_timeout=timedelta(seconds=1))


async def ended(driver: Any) -> None:
    """Wait until nothing is queued or runs."""
    while (await driver.fetch("SELECT count(*) AS left FROM pgqueuer"))[0]["left"]:  # noqa: ASYNC110 - theirs, by SQL
        await asyncio.sleep(0.01)


def submits(at: stage.Stage, count: int, connections: int) -> stage.Figures:
    from pgqueuer.queries import Queries

    async def work(_driver: Any, _queries: Any, url: str) -> stage.Figures:
        clients = [Queries(await connect(url)) for _ in range(connections)]

        async def one(client: Any, size: int) -> None:
            for _ in range(size):
                await client.enqueue("noop", b"x")

        answer = {}
        for size in (5, count // connections):
            begin = stage.now()
            await asyncio.gather(*(one(client, size) for client in clients))
            answer = stage.rate(size * connections, begin)
        return answer

    return perform(at, work)


def functions(at: stage.Stage, count: int) -> stage.Figures:
    async def work(driver: Any, queries: Any, _: str) -> stage.Figures:
        answer = {}
        for size in (BATCH, count):
            begin = stage.now()
            await queries.enqueue(["noop"] * size, [b"x"] * size, [0] * size)
            await ended(driver)
            answer = stage.rate(size, begin)
        return answer

    return perform(at, work, workers=stage.SLOTS)


def latency(at: stage.Stage, count: int) -> stage.Figures:
    from pgqueuer.core.completion import CompletionWatcher

    async def work(driver: Any, queries: Any, _: str) -> stage.Figures:
        took_ms = []
        async with CompletionWatcher(driver, queries=queries, debounce=timedelta(milliseconds=1)) as watcher:
            for _ in range(count + stage.WARM):
                begin = stage.now()
                await watcher.wait_for((await queries.enqueue("noop", b"x"))[0])
                took_ms.append((stage.now() - begin) * 1_000)
        return stage.latency(took_ms[stage.WARM :])

    return perform(at, work, workers=stage.SLOTS)


PEER = stage.Peer(
    name="pgqueuer",
    durable="fsync before each answer; ends up to 0.1 s late",
    captured="",
    workloads={
        "submits, 1 connection": (partial(submits, connections=1), 2_000),
        "submits, 64 connections": (partial(submits, connections=64), 6_400),
        "functions": (functions, 5_000),
        "function latency": (latency, 30),
    },
    programs=("postgres", "initdb"),
    debian=("postgresql",),
    pypi=("pgqueuer[asyncpg]",),
    versions=("postgres", "--version"),
)

if __name__ == "__main__":
    if sys.argv[1] == "worker":
        asyncio.run(worker(sys.argv[2]))
    else:
        stage.main(PEER)
