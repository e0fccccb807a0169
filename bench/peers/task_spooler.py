"""task-spooler: a queue in the memory of one process; each submit is a start of `tsp`, output goes into files."""

import subprocess

from peers import stage


def processes(at: stage.Stage, count: int) -> stage.Figures:
    environment = {
        "PATH": stage.PATH,
        "TS_SOCKET": str(at.directory / "socket"),
        "TMPDIR": str(at.directory),
        "TS_MAXFINISHED": str(count),
        "TS_MAXCONN": "1000",
    }

    def tsp(*arguments: str) -> str:
        return subprocess.run(["tsp", *arguments], env=environment, capture_output=True, text=True, check=True).stdout

    tsp("-S", str(stage.SLOTS))
    try:
        begin = stage.now()
        for _ in range(count):
            tsp_pid = subprocess.Popen(["tsp", "true"], env=environment, stdout=subprocess.DEVNULL)
            tsp_pid.wait()
        stage.until(lambda: is_done(tsp("-l")))
        return stage.rate(count, begin)
    finally:
        tsp("-K")


def is_done(table: str) -> bool:
    """Whether nothing in the list of jobs still waits or runs."""
    return not any(word in table for word in (" queued ", " running "))


PEER = stage.Peer(
    name="task-spooler",
    durable="no: in memory",
    captured="yes, into files",
    workloads={"processes": (processes, 1_500)},
    programs=("tsp",),
    debian=("task-spooler",),
    versions=("tsp", "-V"),
)

if __name__ == "__main__":
    stage.main(PEER)
