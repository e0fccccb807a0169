"""Power cuts: a library to preload into a process, and the cut of its files once it was killed.

kill -9 alone leaves the page cache, so that it says nothing of fsync. With the library (tests/faults/powershim.c) each
file knows what of it was synced; `cut_power` makes every file that, as if the machine had lost its power. Reusable for
any process: start it with `environment(build_shim(...))`, kill it, `cut_power(directory)`, start it again.
"""

import os
import random
import shutil
import subprocess
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple

_SOURCE: Final = Path(__file__).parents[1] / "faults" / "powershim.c"
_LENGTH: Final = "user.tq.synced_length"
_CONTENTS: Final = "user.tq.synced_contents"
_length: Final = Struct("=q")


class NoShim(Exception):
    """Power cuts cannot be played here; the text says why, for a skip."""


class Cut(NamedTuple):
    """What a cut did to a file: its length before and after."""

    path: Path
    before: int
    after: int


def build_shim(place: Path) -> Path:
    """Compile the library into the directory `place` and return it. Raises NoShim where that is impossible."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise NoShim("no C compiler: power cuts cannot be played")
    probe = place / "probe"
    probe.touch()
    try:
        os.setxattr(probe, _LENGTH, b"")
    except OSError as error:
        raise NoShim(f"the file system of {place} has no extended attributes: {error}") from error
    library = place / "powershim.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, _SOURCE, "-ldl", "-lpthread"],
        check=True,
    )
    return library


def environment(
    library: Path, *, fail_sync: int = 0, sync_us: int = 0, fail_write: int = 0, arm: Path | None = None
) -> dict[str, str]:
    """Return the variables for a process: it remembers what it syncs; the sync number `fail_sync` fails (0 = none).

    `fail_write`: so does the write of that number to a log. With `arm`, both are counted once that file exists.
    """
    found = {"LD_PRELOAD": str(library)}
    if fail_write:
        found["TQ_SHIM_FAIL_WRITE"] = str(fail_write)
    if arm is not None:
        found["TQ_SHIM_ARM"] = str(arm)
    if fail_sync:
        found["TQ_SHIM_FAIL_SYNC"] = str(fail_sync)
    if sync_us:
        found["TQ_SHIM_SYNC_US"] = str(sync_us)
    return found


def synced_length(path: Path) -> int:
    """Return how many bytes of a file were there when its last completed sync began, 0 if there was none."""
    try:
        length: int = _length.unpack(os.getxattr(path, _LENGTH))[0]
    except OSError:
        return 0
    return length


def cut_power(directory: Path, dice: random.Random | None = None) -> list[Cut]:
    """Cut every file below `directory` to what was synced. The processes that wrote there must be dead.

    With `dice`, some of what was written after the sync may have reached the disk too: lengths fall anywhere from the
    synced one to the present one. Small files get back the contents that were synced (or, by the dice, keep the newer).
    """
    cuts = []
    for path in sorted(path for path in directory.rglob("*") if path.is_file() and not path.is_symlink()):
        before, length = path.stat().st_size, synced_length(path)
        luck = dice.random() if dice is not None else 0.0
        if luck > 0.5 and dice is not None:
            after = dice.randint(min(length, before), before)
            os.truncate(path, after)
        else:
            after = min(length, before)
            os.truncate(path, after)
            _put_back(path)
        cuts.append(Cut(path, before, after))
    return cuts


def _put_back(path: Path) -> None:
    """Give a small file the contents that it had at its last sync, in place: its attributes stay."""
    try:
        contents = os.getxattr(path, _CONTENTS)
    except OSError:
        return
    with path.open("r+b") as file:
        file.write(contents)
        file.truncate()
