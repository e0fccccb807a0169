"""xargs -P: no queue at all, only processes started two at a time. Nothing is kept, nothing is captured."""

import subprocess

from peers import stage


def processes(_: stage.Stage, count: int) -> stage.Figures:
    lines = "x\n" * count
    begin = stage.now()
    subprocess.run(["xargs", "-P", str(stage.SLOTS), "-n", "1", "true"], input=lines, text=True, check=True)
    return stage.rate(count, begin)


PEER = stage.Peer(
    name="xargs -P2",
    durable="no",
    captured="no",
    workloads={"processes": (processes, 3_000)},
    programs=("xargs",),
    debian=("findutils",),
    versions=("xargs", "--version"),
)

if __name__ == "__main__":
    stage.main(PEER)
