"""The Redis below several peers: each write is in the append-only file, and synced, before its answer."""

from collections.abc import Callable
from typing import Any, Final

from peers import prepared, stage

DURABLE: Final = "fsync before each answer"
PROGRAMS: Final = ("redis-server",)
VERSIONS: Final = ("redis-server", "--version")


def serve(at: stage.Stage) -> str:
    """Start a Redis, and return its URL; the environment of what starts later has it as PEER_URL."""
    port = stage.free_port()
    at.serve(
        port,
        *("redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", str(at.directory)),
        *("--appendonly", "yes", "--appendfsync", "always", "--save", ""),
    )
    return f"redis://127.0.0.1:{port}"


def client(url: str, database: int = 0) -> Any:
    """Return a plain client."""
    from redis import Redis  # type: ignore[import-not-found]

    return Redis.from_url(f"{url}/{database}")


def submits(url: str, submit: Callable[[], object], count: int, connections: int) -> stage.Figures:
    """Measure submits: recorded once as they are made, then sent again on an empty server."""
    timed = prepared.recorded(submit, count)
    client(url).flushall()
    submit()  # what a library sends once, such as scripts, is there again
    return prepared.rate(int(url.rpartition(":")[2]), timed, connections, prepared.redis_reply)


def bulk(count: int, submit: Callable[[int], object], ended: Callable[[], int]) -> stage.Figures:
    """Measure from the first submit until `ended` has grown by `count`, after a few to warm up."""
    for size in (20, count):
        before = ended()
        begin = stage.now()
        submit(size)
        stage.until(lambda done=before + size: ended() >= done)
    return stage.rate(count, begin)
