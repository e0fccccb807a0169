"""Ending with the parent: what `tq up` starts must not outlive it, however it dies.

The kernel sends SIGTERM when the parent is gone, also by `kill -9`: the worker then drains, and the server stops.
"""

import os
import signal
from collections.abc import Mapping
from typing import Final

VARIABLE: Final = "TQ_UP"  # the pid of the `tq up` that starts a program
_PR_SET_PDEATHSIG: Final = 1


def follow(environ: Mapping[str, str]) -> None:
    """End with the `tq up` that started this program, if one did. Call it in the main thread, before others start."""
    pid = environ.get(VARIABLE, "")
    if not pid.isdecimal():
        return
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != int(pid):  # it was gone before the kernel was told
        os.kill(os.getpid(), signal.SIGTERM)
