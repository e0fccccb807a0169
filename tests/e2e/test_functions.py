"""Functions end to end, with real processes: values of any size, a killed worker, server, and program."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trio

import tq.client
from tests.support import called, processes
from tests.support.town import Town, town
from tq import limits
from tq.client import BlockingClient


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Town]:
    with town(tmp_path, "--heartbeat", "200ms") as one:
        shutil.copy(called.__file__, one.place / "work.py")
        yield one


@pytest.fixture
def client(here: Town) -> Iterator[BlockingClient]:
    with tq.client.connect_blocking(environ=here.environ) as one:
        yield one


def start(here: Town, name: str = "worker") -> int:
    """Start a worker that allows the functions; return its pid."""
    return here.worker(name, "--allow", "work").pid


def test_values_of_a_hundred_kilobytes_come_back_many_at_once(here: Town, client: BlockingClient) -> None:
    start(here)
    sizes = [100_000, 1, 120_000, 5_000, *[60_000] * 40]

    values = client.map("work:blob", sizes).result()

    assert [len(value) for value in values] == sizes


def test_a_value_that_is_too_large_says_so(here: Town, client: BlockingClient) -> None:
    start(here)
    with pytest.raises(tq.client.TaskFailed, match="result_bytes_max") as caught:
        client.submit("work:blob", limits.result_bytes_max, retries=0).result()
    assert caught.value.cause == "bad_result"


def test_calls_of_a_killed_worker_are_called_elsewhere(here: Town, client: BlockingClient) -> None:
    log = here.place / "log"
    first = here.worker("first", "--allow", "work")
    job = client.submit("work:chain", {"log": str(log), "1": "wait"}, 1)
    processes.until(lambda: log.exists() and log.read_bytes(), "the call runs")

    first.kill()
    start(here, "second")
    processes.until(lambda: log.read_bytes().split() == [b"1", b"1"], "it runs again")

    assert job.cancel() == 1
    with pytest.raises(tq.client.TaskCancelled):
        job.result()


def test_a_killed_server_costs_no_call_and_no_value(here: Town, client: BlockingClient) -> None:
    start(here)
    log = here.place / "log"
    job = client.map("work:chain", range(1, 3_001), {"log": str(log)})
    found: dict[str, list[int]] = {"trio": [], "threads": []}

    async def read() -> None:
        async with tq.client.connect(environ=here.environ) as other:
            found["trio"].extend([result.get() async for result in other.job(job.id).as_completed()])

    with ThreadPoolExecutor(1) as threads:
        reader = threads.submit(trio.run, read)
        for result in job.as_completed():
            found["threads"].append(result.get())
            if len(found["threads"]) == 300:
                here.server.process.send_signal(signal.SIGKILL)
                here.server.process.wait()
                here.server.start()
        reader.result()

    assert job.result() == list(range(1, 3_001))
    for numbers in (*found.values(), map(int, log.read_bytes().split())):
        assert sorted(numbers) == list(range(1, 3_001))


PROGRAM = """
import os, signal, sys, tq.client

def die_at(place):
    if sys.argv[1] == place:
        os.kill(os.getpid(), signal.SIGKILL)

def items():
    for number in range(1, 2_001):
        if number == 1_500:
            die_at("upload")
        yield number

with tq.client.connect_blocking() as client:
    job = client.map("work:chain", items(), {"log": sys.argv[2]}, key="the night of the 27th")
    for number, _ in enumerate(job.as_completed()):
        if number == 100:
            die_at("results")
    print(job.id, job.existed, sum(job.result()))
"""


def test_a_killed_program_finds_its_work_again_by_its_key(here: Town, client: BlockingClient) -> None:
    start(here)
    log = here.place / "log"
    died = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM, place, str(log)],
            env=here.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        for place in ("upload", "results", "nowhere")
    ]
    assert [done.returncode for done in died] == [-signal.SIGKILL, -signal.SIGKILL, 0]
    assert died[-1].stdout == f"1 True {sum(range(1, 2_001))}\n"
    assert [job["id"] for job in client.jobs()] == ["1"]
    assert sorted(map(int, log.read_bytes().split())) == list(range(1, 2_001)), "each ran once"


def test_a_worker_that_cannot_find_its_module_says_so_at_its_start(here: Town) -> None:
    worker = here.launch_worker("worker", "--allow", "no_such_module_at_all")
    assert worker.process.wait(processes.PATIENCE_S) == 78
    assert "there is no module no_such_module_at_all to allow" in worker.text()
