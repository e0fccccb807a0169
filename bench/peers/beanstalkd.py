"""beanstalkd with -f0: every put is in its log and synced before the answer. It knows queues, not tasks or results."""

from functools import partial

from peers import prepared, stage


def submits(at: stage.Stage, count: int, connections: int) -> stage.Figures:
    port = stage.free_port()
    at.serve(port, "beanstalkd", "-l", "127.0.0.1", "-p", str(port), "-b", str(at.directory), "-f0")
    body = b"x" * 100
    put = b"put 1024 0 60 %d\r\n%s\r\n" % (len(body), body)
    warm, timed = [[(put, 1)]] * connections, [[(put, 1)]] * count
    prepared.rate(port, warm, connections, prepared.beanstalk_reply)
    return prepared.rate(port, timed, connections, prepared.beanstalk_reply)


PEER = stage.Peer(
    name="beanstalkd -f0",
    durable="fsync before each answer",
    captured="",
    workloads={
        "submits, 1 connection": (partial(submits, connections=1), 4_000),
        "submits, 64 connections": (partial(submits, connections=64), 6_400),
    },
    programs=("beanstalkd",),
    debian=("beanstalkd",),
    versions=("beanstalkd", "-v"),
)

if __name__ == "__main__":
    stage.main(PEER)
