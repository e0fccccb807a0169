"""What this machine offers: CPUs, memory, name, and the modules whose functions are called.

A container's limits count. The kernel shows the whole machine to everybody, so a worker in a cgroup that may use two
CPUs would start sixty-four tasks on them: quota and memory limit are read along the whole path of our cgroup, since
each ancestor's binds too, both in version 1 and in version 2. What cannot be read limits nothing.
"""

import os
import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple

from tq import limits
from tq.errors import BadRequest, ConfigurationError
from tq.store.files import mounts

_PROC: Final = Path("/proc/self")
_UNLIMITED: Final = 1 << 60  # version 1 says "no limit" with a huge number of bytes


class Machine(NamedTuple):
    """`cpus_milli` in thousandths of a CPU; `mem_bytes` what is there, not what is free."""

    cpus_milli: int
    mem_bytes: int
    host: str


def look(proc: Path = _PROC) -> Machine:
    """Return what this process may use of its machine. `proc` is for tests."""
    cpus_milli = 1_000 * len(os.sched_getaffinity(0))
    mem_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for directory in _cgroups(proc):
        cpus_milli = min(cpus_milli, _quota_milli(directory) or cpus_milli)
        mem_bytes = min(mem_bytes, _memory_bytes(directory) or mem_bytes)
    return Machine(max(cpus_milli, 1), mem_bytes, socket.gethostname())


def _cgroups(proc: Path) -> Iterator[Path]:
    """Yield the directory of each cgroup that this process is in, and those above it."""
    own = _own_paths(proc)
    for root, mount, controllers in _mounts(proc):
        for names, path in own:
            if names != controllers and not names & controllers:
                continue
            below = path.removeprefix(root.rstrip("/")) if path.startswith(root) else ""
            directory = Path(mount + below)
            while directory.is_relative_to(mount):
                yield directory
                directory = directory.parent


def _own_paths(proc: Path) -> list[tuple[set[str], str]]:
    """Return (controllers, path) from /proc/self/cgroup; version 2 has no controllers there."""
    lines = _text(proc / "cgroup").splitlines()
    parts = [line.split(":", 2) for line in lines if line.count(":") > 1]
    return [(set(names.split(",")) - {""}, path) for _, names, path in parts]


def _mounts(proc: Path) -> list[tuple[str, str, set[str]]]:
    """Return (root, mount point, controllers) of each cgroup file system, from /proc/self/mountinfo."""
    found = []
    with suppress(OSError):
        for mount in mounts(proc / "mountinfo"):
            if mount.kind == "cgroup2":
                found.append((mount.root, mount.point, set[str]()))
            elif mount.kind == "cgroup":
                found.append((mount.root, mount.point, set(mount.options.split(",")) & {"cpu", "memory"}))
    return found


def _quota_milli(directory: Path) -> int | None:
    """Return the CPUs that a cgroup may use, in thousandths; None without a limit."""
    quota, _, period = _text(directory / "cpu.max").partition(" ")
    if not quota:
        quota, period = _text(directory / "cpu.cfs_quota_us"), _text(directory / "cpu.cfs_period_us")
    quota_us, period_us = _number(quota), _number(period)
    return quota_us * 1_000 // period_us if quota_us and period_us else None


def _memory_bytes(directory: Path) -> int | None:
    """Return the memory that a cgroup may use; None without a limit."""
    found = _number(_text(directory / "memory.max") or _text(directory / "memory.limit_in_bytes"))
    return found if found and found < _UNLIMITED else None


def _number(text: str) -> int | None:
    return int(text) if text.strip().isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


class Imports(NamedTuple):
    """`path` as in sys.path, `directory` where functions run. Bytes: who reads them may have another locale."""

    path: tuple[bytes, ...]
    directory: bytes


def imports(modules: Iterable[str]) -> Imports:
    """Return where these modules are imported from. Raises ConfigurationError if one is not there, as far as one sees.

    Nothing of them is run here: of `a.b` only `a` is looked for.
    """
    try:
        here = os.getcwd()
    except FileNotFoundError as error:
        raise ConfigurationError("the current directory no longer exists", hint="start the worker elsewhere") from error
    for module in modules:
        top = module.partition(".")[0]
        if not _is_known(top) and PathFinder.find_spec(top, [here]) is None:
            raise ConfigurationError(
                f"there is no module {top} to allow", hint=f"start the worker where it is ({here}), or set PYTHONPATH"
            )
    return Imports(tuple(os.fsencode(place) for place in (here, *sys.path) if place), os.fsencode(here))


def check_modules(modules: tuple[str, ...]) -> None:
    """Raise BadRequest for what cannot be the name of a module."""
    if len(modules) > limits.modules_max:
        raise BadRequest(f"more than {limits.modules_max} modules (modules_max)", hint="allow their package")
    for module in modules:
        if len(module) > limits.function_chars_max or not all(part.isidentifier() for part in module.split(".")):
            raise BadRequest(f"{module!r} is not the name of a module", hint="write --allow PACKAGE.MODULE")
        if len(module.encode()) > limits.offer_word_bytes_max:
            raise BadRequest(f"the module {module!r} is longer than offer_word_bytes_max", hint="allow its package")


def _is_known(top: str) -> bool:
    try:
        return find_spec(top) is not None
    except ValueError:  # __main__
        return False
