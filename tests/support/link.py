"""A real link between two hosts on this machine: two network namespaces, and a virtual cable that can be pulled out.

    with linked() as link:                     # this thread, and what it starts from now on, is on the near host
        ... `tq server`, *link.listen ...
        ... [*link.far, "tq", "worker"], TQ_URL=link.url ...
        link.black_hole()                      # the cable is out: the kernels send again, ever more rarely
        link.heal()

What proxy.py cannot show is here: what TCP itself does. Needs root, `ip` and `nsenter`; the test is skipped where they
are not to be had. Nothing outside of the two namespaces is touched; they end with the block and what runs in them.
"""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest

_NEW_NET: Final = 0x40000000  # CLONE_NEWNET
_NEAR, _FAR, _PORT = "10.0.0.1", "10.0.0.2", 7878
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class Link:
    """The cable, seen from the near host. Made by `linked`; see the head of this file."""

    url = f"tq://{_NEAR}:{_PORT}"
    listen = ("--listen", f"0.0.0.0:{_PORT}")

    def __init__(self, far: int) -> None:
        self.far = ("nsenter", f"--net=/proc/{os.getpid()}/fd/{far}")  # words before a command that is to run there

    def black_hole(self) -> None:
        """Pull the cable out: packets vanish, and only who dials on the far host hears that there is no way."""
        _ip("link", "set", "far0", "down", before=self.far)

    def heal(self) -> None:
        """Put the cable in again."""
        _ip("link", "set", "far0", "up", before=self.far)


@contextmanager
def linked() -> Iterator[Link]:
    """Put this thread onto a new host with a link to another one while the block lasts."""
    if os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("nsenter")):
        pytest.skip("a network namespace needs root, `ip` and `nsenter`")
    home = _here()
    try:
        _unshare()
        far = _here()
        try:
            _unshare()
            link = Link(far)
            _ip("link", "set", "lo", "up")
            if subprocess.run(
                ["ip", "link", "add", "near0", "type", "veth", "peer", "name", "far0"], check=False
            ).returncode:
                pytest.skip("this kernel has no virtual cables (veth)")
            subprocess.run(["ip", "link", "set", "far0", "netns", f"/proc/self/fd/{far}"], check=True, pass_fds=[far])
            for name, address, before in (("near0", _NEAR, ()), ("far0", _FAR, link.far)):
                _ip("addr", "add", f"{address}/24", "dev", name, before=before)
                _ip("link", "set", name, "up", before=before)
            yield link
        finally:
            os.close(far)
    finally:
        _LIBC.setns(home, 0)
        os.close(home)


def _here() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY)


def _unshare() -> None:
    if _LIBC.unshare(_NEW_NET) != 0:
        pytest.skip(f"no network namespace is to be had: {os.strerror(ctypes.get_errno())}")


def _ip(*words: str, before: tuple[str, ...] = ()) -> None:
    subprocess.run([*before, "ip", *words], check=True)
