"""Work that blocks, beside the loop: in a thread, or in the loop itself where the machine has no thread to give.

A machine with too many processes (a fork bomb, `pids.max`) refuses threads, too. To stand still for a moment costs less
there than the end of the program, and with it what was to be written down.
"""

from collections.abc import Callable
from typing import TypeVar

import trio

R = TypeVar("R")
_NO_THREAD = "can't start new thread"


def is_lack(error: RuntimeError) -> bool:
    """Whether this says that there was no thread to be had."""
    return str(error) == _NO_THREAD


async def in_thread(function: Callable[..., R], *arguments: object, abandon_on_cancel: bool = False) -> R:
    """Return what `function` returns, run where it holds nobody up, if that can be."""
    try:
        return await trio.to_thread.run_sync(function, *arguments, abandon_on_cancel=abandon_on_cancel)
    except RuntimeError as error:
        if not is_lack(error):
            raise
    return function(*arguments)
