"""GNU parallel with a job log: what ended can be left out of a second run. The log is written, not synced."""

import subprocess

from peers import stage


def processes(at: stage.Stage, count: int) -> stage.Figures:
    log = str(at.directory / "parallel.log")
    command = ["parallel", "--will-cite", "-j", str(stage.SLOTS), "-N0", "--joblog", log, "true"]
    lines = "x\n" * count
    begin = stage.now()
    subprocess.run(command, input=lines, text=True, check=True)
    return stage.rate(count, begin)


PEER = stage.Peer(
    name="GNU parallel",
    durable="no: a log without fsync",
    captured="yes",
    workloads={"processes": (processes, 400)},
    programs=("parallel",),
    debian=("parallel",),
    versions=("parallel", "--version"),
)

if __name__ == "__main__":
    stage.main(PEER)
