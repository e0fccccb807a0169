"""A process that submits one task after the other over one connection and prints what is acknowledged, until it ends.

    python -m tests.support.chaos_stream FIRST LAST PAUSE_S WORD...

Task number N has the key `stream-N`. A line `N ID` is printed once its id was given, and no sooner. A failure that may
be repeated is repeated, with the same key; any other ends the process with its text on stderr.
"""

import sys
import time
from typing import Any

from tests.server.process import command
from tests.support.chaos_clients import AGAIN, FIELDS, SLEEPS_S
from tq.client.drivers.blocking import Client
from tq.client.target import of_directory
from tq.errors import TqError


def main(first: int, last: int, pause_s: float, words: list[str]) -> None:
    """Submit the tasks from `first` to `last`."""
    import os
    from pathlib import Path

    with Client(lambda: of_directory(Path(os.environ["TQ_DATA"]), os.environ), patience_s=0) as client:
        for number in range(first, last + 1):
            sleep = SLEEPS_S[number % len(SLEEPS_S)]
            print(number, submit(client, f"stream-{number}", [*words, sleep]), flush=True)
            time.sleep(pause_s)


def submit(client: Client, key: str, words: list[str]) -> str:
    """Submit until it is acknowledged; return the id."""
    while True:
        try:
            answer: Any = client.ask(command(*words, key=key, name=key, **FIELDS))
        except TqError as error:
            if error.exit_status not in AGAIN:
                raise
            time.sleep(0.05)
        else:
            return str(answer.id)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:])
