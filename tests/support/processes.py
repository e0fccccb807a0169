"""Processes as tests of faults see them: whose child is whose, since when, frozen and thawed, and who bears a cookie.

Linux only, read from /proc. Signals go only to pids that the caller names or that descend from them.
"""

import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

PATIENCE_S: Final = 60.0
_ADDRESS: Final = 1  # columns of /proc/net/tcp
_STATE: Final = 3
_LISTEN: Final = "0A"


def until(condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """Wait until `condition` gives something true, and return that; fail with `what` after the patience."""
    deadline = time.monotonic() + patience_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {patience_s:g} s: {what}"
        time.sleep(0.02)
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs (or is frozen): neither gone nor a zombie."""
    return _state(pid) not in ("", "Z", "X")


def is_frozen(pid: int) -> bool:
    """Whether a process is stopped."""
    return _state(pid) == "T"


def started(pid: int) -> int:
    """Return when a process started, in clock ticks since the boot: with its pid, its identity."""
    return int(_stat(pid)[19])


def children(pid: int) -> list[int]:
    """Return the children of a process, of all its threads."""
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*"):
        with suppress(OSError):
            found += map(int, (thread / "children").read_text().split())
    return found


def tree(pid: int) -> list[int]:
    """Return a process and all its descendants, parents first."""
    found = [pid]
    for child in children(pid):
        found += tree(child)
    return found


def launcher_of(worker: int) -> int:
    """Return the pid of a worker's launcher, 0 while it has none. Its parent is the sentry."""
    for child in [grandchild for one in children(worker) for grandchild in children(one)]:
        with suppress(OSError):
            if Path(f"/proc/{child}/comm").read_text().strip() == "tq-launcher":
                return child
    return 0


def parent(pid: int) -> int:
    """Return the parent of a process, 0 if that is gone; a launcher's is its sentry."""
    with suppress(OSError):
        return int(_stat(pid)[1])
    return 0


def freeze_tree(pid: int) -> list[int]:
    """Stop a process and all its descendants; return them."""
    frozen: list[int] = []
    while True:
        fresh = [one for one in tree(pid) if one not in frozen]
        if not fresh:
            return frozen
        for one in fresh:
            os.kill(one, signal.SIGSTOP)
        until(lambda fresh=fresh: all(_state(one) in ("T", "Z", "X", "") for one in fresh), "they stop")
        frozen += fresh


def thaw(pids: Iterable[int]) -> None:
    """Let processes run on."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def bearers(*words: str, one_of: Iterable[str] = ()) -> list[int]:
    """Return the living processes with all these words (as in TQ_TASK=…) in their environment, and `one_of` those."""
    wanted, either = {word.encode() for word in words}, {word.encode() for word in one_of}
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            borne = set((place / "environ").read_bytes().split(b"\0"))
            if wanted <= borne and (not either or either & borne) and is_alive(int(place.name)):
                found.append(int(place.name))
    return found


def listening(pids: Iterable[int]) -> set[str]:
    """Return the addresses (HEX:PORT in hexadecimal, as /proc/net/tcp has them) on which these processes listen."""
    sockets = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            with suppress(OSError):
                sockets.add(str(link.readlink()))
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            columns = line.split()
            if columns[_STATE] == _LISTEN and f"socket:[{columns[9]}]" in sockets:
                found.add(columns[_ADDRESS])
    return found


def rss_kib(pid: int) -> int:
    """Return the resident memory of a process in KiB."""
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2].split()[0])


def _state(pid: int) -> str:
    try:
        return _stat(pid)[0]
    except OSError:
        return ""


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third (the state) on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
