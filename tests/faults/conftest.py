"""What tests of faults share: a library that plays power cuts and failing disks, and a file system of any size."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.power import NoShim, build_shim

SmallDisk = tuple[Path, Callable[[int], None]]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the library of tests/support/power.py, or skip."""
    try:
        return build_shim(tmp_path_factory.mktemp("shim"))
    except NoShim as reason:
        pytest.skip(str(reason))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Mount a file system in memory; the function sets how large it is, in MiB. A change of size costs no memory."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("only root can mount a small file system")
    done = subprocess.run([mount, "-t", "tmpfs", "-o", "size=2g", "tmpfs", place], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.decode().strip()}")

    def resize(mib: int) -> None:
        subprocess.run([mount, "-o", f"remount,size={mib}m", place], check=True)

    try:
        yield place, resize
    finally:
        subprocess.run(["umount", place], check=True)
