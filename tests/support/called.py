"""Functions that tests of function tasks call, in a process of a worker's: it is copied to where that imports from."""

import os
import signal
import subprocess
import sys
import time
from os import path
from pathlib import Path

import trio

__all__ = ["path"]  # a module in the module
calls: list[None] = []


def echo(*positional, **named):
    return [list(positional), named]


def count():
    calls.append(None)
    return [os.getpid(), len(calls)]


def gather(items):
    items.append(len(items))
    return items


def variables(*_):
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(("TQ_", "TRACE", "SECRET"))}


def spoil_variables():
    os.environ["TQ_QUEUE"] = "spoilt"
    del os.environ["TQ_WORKER"]


def write(out, err):
    print(out)
    os.write(2, err.encode())
    subprocess.run(["echo", "from below"], check=True)


def flood(size):
    for _ in range(size // 65536):
        os.write(1, b"x" * 65536)


def raises(text):
    raise KeyError(text)


def deep():
    return deep()


class Odd(Exception):
    def __str__(self):
        raise RuntimeError


def raises_odd():
    raise Odd


def raises_value(text, times=1):
    raise ValueError(text.decode(errors="surrogatepass") * times)


class Hostile(list):
    def __init__(self, *text):
        super().__init__([1])
        self.text = text

    def __iter__(self):
        raises_value(*self.text)


def give_hostile(*text):
    return Hostile(*text)


def leave(code):
    sys.exit(code)


def vanish(code):
    os._exit(code)


def crash():
    os.kill(os.getpid(), signal.SIGSEGV)


def give(what):
    long = "x" * 200_000
    return {"object": object(), "set": {1}, "key": {1: 2}, "large": 2**63, "long": long, "text": "\udc80"}[what]


def cycle():
    items = []
    items.append(items)
    return items


def wide():
    items = []
    for _ in range(30):
        items = [items] * 9
    return items


def sleep(marker):
    print("ready", flush=True)
    subprocess.run(["sleep", marker], check=False)


def stubborn(marker):
    signal.signal(signal.SIGTERM, lambda *_: None)
    print("ready", flush=True)
    while True:
        subprocess.run(["sleep", marker], check=False)


def graceful():
    def stop(*_):
        raise InterruptedError("was told to stop")

    signal.signal(signal.SIGTERM, stop)
    print("ready", flush=True)
    time.sleep(1000)


def abandon(marker):
    for _ in range(3):
        subprocess.Popen(["sleep", marker], env={}, start_new_session=True)
    return os.getpid()


def daemon(marker):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execvp("sleep", ["sleep", marker])
        os._exit(0)
    os.wait()


def twice():
    os.fork()
    return os.getpid()


def forge(marker, field, number):
    """Answer this call in tq's own words, with this number in a field (or as the length of a value); then sleep."""
    from msgspec.structs import replace

    from tq.launcher.functions import calls

    made_up = bytes(int(number)) if field == "value" else int(number)
    answer = replace(calls.Returned(1, 1, 1, 0, b"\x05", "", 0, 0, 0, False, False), **{field: made_up})
    os.write(100, calls.encode(answer))  # warm_process.py: where no program looks for descriptors
    sleep(marker)


def close_all(_):
    os.closerange(3, 256)
    time.sleep(600)


def become(marker):
    os.execvp("sleep", ["sleep", marker])


def close_streams():
    sys.stdout.close()
    os.close(2)


def wander():
    os.chdir("/")


def here():
    return str(Path.cwd())


async def under_trio(value):
    await trio.lowlevel.checkpoint()
    return value


class Tool:
    limit = 3

    @staticmethod
    def use(value):
        return value * Tool.limit


def chain(special, number):
    """Do nothing, but for some numbers: so that many such calls are given to a process at once. Note each run."""
    with Path(special["log"]).open("ab", 0) as log:
        log.write(b"%d " % number)
    match special.get(str(number)):
        case "print":
            print(f"line of {number}")
        case "write":
            os.write(2, b"x" * 100_000)
        case "exit":
            os._exit(3)
        case "leave":
            subprocess.Popen(["sleep", "60"])
        case "close":
            os.closerange(3, 1_024)
        case "wait":
            print("ready", flush=True)
            time.sleep(600)
        case "pause":
            time.sleep(0.2)
    return number


def blob(size):
    return "x" * size
