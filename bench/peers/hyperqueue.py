"""HyperQueue as its Python package has it: server and worker inside one process, without the journal.

The package offers neither the program `hq` nor its journal, so nothing is on disk. Output goes into files, as by
default. Its own wait looks once a second, so here the last task leaves a mark, and that is waited for.
"""

import ctypes
import itertools
import os
import socket
from typing import Any

from peers import stage

MARKS = itertools.count()
CLONE_NEWUTS = 0x0400_0000  # a machine's name of its own, for this process alone


def cluster(at: stage.Stage) -> Any:
    from hyperqueue import LocalCluster
    from hyperqueue.cluster import WorkerConfig

    if os.geteuid() == 0 and ctypes.CDLL(None).unshare(CLONE_NEWUTS) == 0:
        socket.sethostname("localhost")  # server and worker find each other by the machine's name, not by loopback
    os.dup2(2, 1)  # the server prints a table; what was measured goes where it belongs (stage.main)
    os.chdir(at.directory)  # output files stand where the job was submitted
    return LocalCluster(str(at.directory), WorkerConfig(cores=stage.SLOTS))


def run(at: stage.Stage, client: Any, count: int) -> None:
    """Submit a job of so many tasks, and wait until the last one has run."""
    from hyperqueue import Job

    mark = at.directory / f"mark-{next(MARKS)}"
    job = Job()
    for _ in range(count - 1):
        job.program(["true"])
    job.program(["touch", str(mark)], priority=-1)
    client.submit(job)
    stage.until(mark.exists, pause_s=0.001)


def processes(at: stage.Stage, count: int) -> stage.Figures:
    with cluster(at) as hq:
        client = hq.client()
        run(at, client, 10)
        begin = stage.now()
        run(at, client, count)
        return stage.rate(count, begin)


def latency(at: stage.Stage, count: int) -> stage.Figures:
    with cluster(at) as hq:
        client = hq.client()
        return stage.round_trips(count, lambda: run(at, client, 1))


PEER = stage.Peer(
    name="HyperQueue (wheel)",
    durable="no: the wheel has no journal",
    captured="yes, into files",
    workloads={"processes": (processes, 1_000), "process latency": (latency, 20)},
    pypi=("hyperqueue",),
)

if __name__ == "__main__":
    stage.main(PEER)
