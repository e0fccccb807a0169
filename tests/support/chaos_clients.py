"""The clients of the chaos test, and the record of what they were told: both outside of tq.

Each request has a key, and is repeated with it until an id came back: after a failure that may be repeated, and after
its client was killed. `Acknowledged` takes down every id the moment a client has printed it, on disk too.
"""

import json
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.support import processes
from tests.support.town import Town

AGAIN: Final = (69, 74, 75)
KILLED: Final = -9
ALREADY_ENDED: Final = 1
FAILED: Final = 1  # a task of an array did
SLEEPS_S: Final = ("0",) * 8 + ("0.05", "0.05", "0.1", "0.3", "1.5")  # how long the tasks of the chaos run
RETRIES: Final = 10
FIELDS: Final[dict[str, Any]] = {"retries": RETRIES, "crash_limit": 0, "backoff_ms": (50, 1_000)}
OPTIONS: Final = ("--retries", str(RETRIES), "--crash-limit", "0", "--backoff", "50ms")
_STREAM_TASKS: Final = 50  # of one process


class Job(NamedTuple):
    """What was acknowledged: the job's id, and how many tasks it must have."""

    id: str
    size: int = 0  # 0 = no array

    @property
    def tasks(self) -> list[str]:
        """The ids of its tasks."""
        return [f"{self.id}.{number}" for number in range(1, self.size + 1)] if self.size else [self.id]


class Acknowledged:
    """What clients were told, by key. Shared by threads; `path` has the same for whoever looks for a failure."""

    def __init__(self, path: Path) -> None:
        self.jobs: dict[str, Job] = {}
        self.cancelled: set[str] = set()  # ids of jobs whose cancel was acknowledged
        self.repeats: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._lock = threading.Lock()
        self._path = path

    def add(self, key: str, job: Job) -> None:
        """Take down an id. One key has one job, for ever."""
        with self._lock, self._path.open("a") as file:
            print(key, *job, file=file)
            if self.jobs.setdefault(key, job) != job:
                self.wrong.append(f"I2: key {key} was answered {self.jobs[key]}, then {job}")

    def repeat(self, why: str) -> None:
        """Count that a request is repeated."""
        with self._lock:
            self.repeats[why] += 1

    def blame(self, what: str) -> None:
        """Note what must not have happened."""
        with self._lock:
            self.wrong.append(what)


class Clients:
    """Client programs that submit until `stop`, each as a process that may be killed or frozen at any moment.

    `task` are the words of a task; one word, how long it shall sleep, follows. `pause_s` is that between two singles,
    `size_max` the most tasks of one job.
    """

    def __init__(
        self, here: Town, told: Acknowledged, task: list[str], dice: random.Random, pause_s: float, size_max: int
    ) -> None:
        self.told = told
        self._here = here
        self._task = task
        self._pause_s = pause_s
        self._size_max = size_max
        self._is_over = threading.Event()
        self._living: dict[str, subprocess.Popen[bytes]] = {}
        self._threads = [
            threading.Thread(target=self._run, args=(loop, random.Random(dice.random())), name=loop.__name__)
            for loop in (
                self._singles,
                self._arrays,
                self._cancelled,
                self._lines,
                self._stream,
                self._held,
                self._failing,
                self._requeued,
                self._alone,
            )
        ]

    def start(self) -> None:
        """Begin to submit."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let each client come to the end of what it asks; none is harmed any more."""
        self._is_over.set()
        for thread in self._threads:
            thread.join(2 * processes.PATIENCE_S)
        hanging = [thread.name for thread in self._threads if thread.is_alive()]
        if hanging:
            self.told.blame(f"clients without an end: {hanging}: {self.pids}")

    @property
    def pids(self) -> list[int]:
        """The processes of clients that live now."""
        return [client.pid for client in list(self._living.values()) if client.poll() is None]

    # ------------------------------------------------------------ one program

    def _run(self, loop: Callable[[random.Random], None], dice: random.Random) -> None:
        try:
            loop(dice)
        except Exception as error:  # noqa: BLE001 - a thread's failure is the test's
            self.told.blame(f"{loop.__name__}: {error!r}")

    def _tq(self, *words: str, stdin: bytes = b"") -> tuple[int, str, str]:
        """Run `tq` to its end, which may come early; return its status and what it said."""
        name = threading.current_thread().name
        with self._here.popen(*words, stdin=subprocess.PIPE) as client:
            self._living[name] = client
            out, err = client.communicate(stdin)
        return client.returncode, out.decode().strip(), err.decode()

    def _submit(self, key: str, size: int, words: tuple[str, ...], task: list[str], stdin: bytes = b"") -> str:
        """Submit until an id was printed; an id that was printed counts, whatever became of its client then."""
        while True:
            patience = "0" if key[-1] in "02468" else "5"
            status, out, err = self._tq(
                "submit", "--connect-timeout", patience, "--key", key, "--name", key, *OPTIONS, *words, "--", *task,
                stdin=stdin,
            )  # fmt: skip
            if out:
                self.told.add(key, Job(out, size))
                return out
            if status not in (KILLED, *AGAIN):
                self.told.blame(f"{key}: status {status}, {err}")
                return ""
            self.told.repeat(f"program {status}")

    # ------------------------------------------------------------ what they do

    def _singles(self, dice: random.Random) -> None:
        number = 0
        while not self._is_over.wait(2 * self._pause_s):
            number += 1
            self._submit(f"single-{number}", 0, (), [*self._task, dice.choice(SLEEPS_S)])

    def _arrays(self, dice: random.Random) -> None:
        """Arrays, each waited for: `tq wait` rides over whatever happens to the server."""
        number = 0
        while not self._is_over.wait(self._pause_s):
            number += 1
            size = dice.randint(2, self._size_max)
            job = self._submit(f"array-{number}", size, ("--array", f"1-{size}"), [*self._task, dice.choice(SLEEPS_S)])
            self._see_end(job)

    def _see_end(self, job: str, *, may_fail: bool = False) -> bool:
        """Wait for a job, so that what waits does not grow for as long as the chaos lasts. Return False if it failed.

        One that may fail is waited for even when all is over.
        """
        while job and (may_fail or not self._is_over.is_set()):
            status, _, err = self._tq("wait", "--timeout", "10", job)
            if status == 0:
                break
            if status == FAILED and may_fail:
                return False
            if status not in (KILLED, 124, *AGAIN):
                self.told.blame(f"tq wait {job}: status {status}, {err}")
                break
            self.told.repeat(f"wait {status}")
        return True

    def _begun(self, key: str, dice: random.Random, throttle: str = "") -> str:
        """Submit an array, and give it a moment to begin; return its id."""
        size = dice.randint(2, 30)
        job = self._submit(key, size, ("--array", f"1-{size}{throttle}"), [*self._task, dice.choice(SLEEPS_S)])
        self._is_over.wait(dice.uniform(0, 0.5))
        return job

    def _cancelled(self, dice: random.Random) -> None:
        """Arrays that are cancelled a moment later, often while some of their tasks run."""
        number = 0
        while not self._is_over.wait(10 * self._pause_s):
            number += 1
            job = self._begun(f"cancelled-{number}", dice, "%4")
            if job:
                self._act("cancel", job)
                self.told.cancelled.add(job)

    def _held(self, dice: random.Random) -> None:
        """Arrays that are held a moment later and released after another one: nothing of them starts between."""

        def attempts(job: str) -> dict[str, int]:
            """Return how many attempts each task of an array has had."""
            while True:
                status, out, err = self._tq("ls", job, "-n", "1000", "-o", "jsonl")
                if status == 0:
                    return {task["id"]: task["attempt"] for task in map(json.loads, out.splitlines())}
                if status not in (KILLED, *AGAIN):
                    self.told.blame(f"tq ls {job}: status {status}, {err}")
                    return {}

        number = 0
        while not self._is_over.wait(10 * self._pause_s):
            number += 1
            job = self._begun(f"held-{number}", dice)
            if job and self._act("hold", job):
                before = attempts(job)
                self._is_over.wait(dice.uniform(0, 2))
                if (after := attempts(job)) != before:
                    self.told.blame(f"{job} was held, and something of it started: {before}, then {after}")
            self._act("release", job)
            self._see_end(job)

    def _failing(self, dice: random.Random) -> None:
        """Arrays whose tasks all fail at first and are dead then; `tq retry` gives each a second round."""
        number = 0
        while not self._is_over.wait(10 * self._pause_s):
            number += 1
            size = dice.randint(1, 10)
            words = ("--retries", "0", "--array", f"1-{size}", "--env", "FAIL_FIRST=1")
            job = self._submit(f"failing-{number}", size, words, [*self._task, dice.choice(SLEEPS_S)])
            while job and not self._see_end(job, may_fail=True):
                self._act("retry", job)

    def _requeued(self, dice: random.Random) -> None:
        """Arrays of long tasks that are put back into the queue while some of them run."""
        number = 0
        while not self._is_over.wait(20 * self._pause_s):
            number += 1
            size = dice.randint(1, 6)
            job = self._submit(f"requeued-{number}", size, ("--array", f"1-{size}"), [*self._task, "1.5"])
            self._is_over.wait(dice.uniform(0, 2))
            self._act("requeue", job)
            self._see_end(job)

    def _alone(self, dice: random.Random) -> None:
        """Arrays of which no task may have two copies at once; each is longer than a lease, so that two would meet."""
        number = 0
        while not self._is_over.wait(10 * self._pause_s):
            number += 1
            size = dice.randint(1, 4)
            words = ("--if-cut", "stop", "--array", f"1-{size}", "--env", "ALONE=1")
            self._see_end(self._submit(f"alone-{number}", size, words, [*self._task, "3"]))

    def _act(self, verb: str, job: str) -> bool:
        """Give a verb until it is acknowledged; return False if there was nothing left to act on."""
        while job:
            status, _, err = self._tq(verb, job)
            if status in (0, ALREADY_ENDED):
                return status == 0
            if status not in (KILLED, *AGAIN):
                self.told.blame(f"tq {verb} {job}: status {status}, {err}")
                return False
            self.told.repeat(f"{verb} {status}")
        return False

    def _lines(self, dice: random.Random) -> None:
        number = 0
        while not self._is_over.wait(10 * self._pause_s):
            number += 1
            size = dice.randint(1, self._size_max)
            lines = "".join(f"line {number}.{line}\n" for line in range(size)).encode()
            task = [*self._task, dice.choice(SLEEPS_S), "{}"]
            self._see_end(self._submit(f"lines-{number}", size, ("--each-line", "-"), task, stdin=lines))

    def _stream(self, dice: random.Random) -> None:
        """Singles over a connection that stays, by a process that begins anew after what was acknowledged."""
        done = 0
        while not self._is_over.is_set():
            until = done + _STREAM_TASKS
            while done < until:
                done = self._stream_once(done, until)

    def _stream_once(self, done: int, until: int) -> int:
        words = [str(done + 1), str(until), str(self._pause_s), *self._task]
        command = [sys.executable, "-m", "tests.support.chaos_stream", *words]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, env=self._here.environ, **pipes) as client:
            self._living["_stream"] = client
            assert client.stdout is not None
            assert client.stderr is not None
            for line in client.stdout:
                number, _, job = line.decode().strip().partition(" ")
                if job:  # a line that was cut off with its process was not said
                    self.told.add(f"stream-{number}", Job(job))
                    done = int(number)
            errors = client.stderr.read().decode()
        if client.returncode not in (0, KILLED):
            raise AssertionError(f"status {client.returncode}, {errors}")
        if client.returncode:
            self.told.repeat("stream killed")
        return done
