"""The kinds of faults: what may go wrong with the server, its disk and clock, the workers, the clients and the network.

Each function makes one thing go wrong, and returns whether there was anything it could be done to.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from tests.sim.client import Client
from tests.sim.server import BEATS_US, Server
from tests.sim.worker import Worker
from tests.sim.world import MS, SECOND, World
from tq.core.model.task import Phase
from tq.core.vocabulary import AttemptRef, Cancel, Drain, Forget, Purge, Retry, SetQueue
from tq.server.commit.commit_loop import Point


class Cast(NamedTuple):
    """Who there is, and where the commit loop stands."""

    world: World
    server: Server
    workers: list[Worker]
    clients: list[Client]
    point: Point = Point.IDLE

    def time_us(self) -> int:
        """Return how long something lasts: shorter or longer than what makes a worker lost."""
        return self.world.dice.choice((50 * MS, 500 * MS, 2 * SECOND, 6 * SECOND, 9 * SECOND))

    def worker(self) -> Worker | None:
        """Return a worker that is up."""
        up = [worker for worker in self.workers if worker.is_up]
        return self.world.dice.choice(up) if up else None

    def bound_worker(self) -> Worker | None:
        """Return a worker that is up, if there is one with tasks that are to stop when it is cut off."""
        up = [worker for worker in self.workers if worker.is_up]
        bound = [worker for worker in up if worker.launcher is not None and worker.launcher.guard.is_alive()]
        return self.world.dice.choice(bound or up) if up else None


def server_crash(cast: Cast) -> bool:
    """Kill the server."""
    if cast.point is Point.FLUSHING:  # anywhere in it, also when it is done
        cast.server.after(cast.world.dice.randint(0, 2 * MS), cast.server.crash, "crashes")
    else:
        cast.server.crash("crashes")
    return True


def server_stop(cast: Cast) -> bool:
    """Ask the server to stop."""
    if not cast.server.is_listening:
        return False
    cast.server.stop()
    return True


def server_freeze(cast: Cast) -> bool:
    """Let the server stand still."""
    cast.server.freezes += 1
    cast.server.freeze(cast.time_us())
    return True


def server_crash_in_a_row(cast: Cast) -> bool:
    """Kill the server, and again soon after each of its next starts: also while workers reconcile."""
    cast.server.crash("crashes")
    cast.server.doomed = cast.world.dice.randint(1, 3)
    return True


def server_crash_at_a_cut(cast: Cast) -> bool:
    """Kill the server while nothing passes to a worker, perhaps one with tasks that are to stop: it comes back with
    other beats, and must wait for what it has let the worker run before. Or cut the worker off when it has come back:
    where beats are shorter, it must go by them.
    """
    worker, server = cast.bound_worker(), cast.server
    if worker is None:
        return False
    server.next_beat_us = BEATS_US[0] if server.beat_us > BEATS_US[0] else BEATS_US[1]
    if cast.world.chance(0.5):
        server.network.part(worker.name, worker.line.end, 3 * BEATS_US[1])
    else:
        cast.world.after(MS, _cut_who_is_back, cast, worker, server.lives, cast.world.now_us + 5 * SECOND)
    server.crash("crashes")
    return True


def _cut_who_is_back(cast: Cast, worker: Worker, life: int, until_us: int) -> None:
    server, world = cast.server, cast.world
    session = server.registry.worker(worker.id)
    if server.lives > life and server.is_up and session is not None and session.peer.is_joined:
        server.network.part(worker.name, worker.line.end, 2 * SECOND)
    elif world.now_us < until_us:
        world.after(MS, _cut_who_is_back, cast, worker, life, until_us)


def server_crash_in_a_sweep(cast: Cast) -> bool:
    """Let a client mean many jobs by one word, and kill the server while it works that off slice by slice; another may
    have said something else meanwhile of those that it comes to last.
    """
    client = cast.world.dice.choice(cast.clients)
    for command in client.script.verbs.wide():
        client.tell(command)
    cast.server.after(MS, _crash_in_a_sweep, cast, cast.world.now_us + SECOND)
    return True


def _crash_in_a_sweep(cast: Cast, until_us: int) -> None:
    server, world = cast.server, cast.world
    if not server.promises.open and world.now_us < until_us:
        server.after(MS, _crash_in_a_sweep, cast, until_us)
        return
    for promise in list(server.promises.open.values())[-1:]:
        if isinstance(promise.command, Purge | Forget):  # what comes to life meanwhile, and ends, is not what it meant
            dead = sorted({subject[0] for subject, seen in promise.before.items() if seen.is_letter})
            if dead:
                client = next((one for one in cast.clients if one.is_idle), cast.clients[0])
                client.tell(Retry(tuple(map(str, dead[-9:]))))
            server.committer.slow_until_us = world.now_us + 50 * MS
            return
        client, last = world.dice.choice(cast.clients), max((subject[0] for subject in promise.before), default=0)
        if last:
            is_retry = isinstance(promise.command, Retry)  # a cancel ends what that has still to do
            client.tell(Cancel((str(last),)) if is_retry else client.script.verbs.short(str(last)))
    server.after(world.wait_us(8 * MS), server.crash, "crashes")


def freeze_before_a_cut(cast: Cast) -> bool:
    """Let the server stand still for less than a beat, and cut a worker off as soon as what it said meanwhile is heard
    and answered: that is for how long its tasks may run, however late the tick was.
    """
    worker, server = cast.bound_worker(), cast.server
    if worker is None or worker.launcher is None or not worker.launcher.guard.is_alive():
        return False
    for_us = cast.world.dice.randint(server.beat_us // 2, server.beat_us)
    server.freezes += 1
    server.freeze(for_us)
    cast.world.after(for_us + 50 * MS, server.network.part, worker.name, worker.line.end, 5 * server.beat_us)
    return True


def freeze_everything(cast: Cast) -> bool:
    """Let everybody stand still: nobody is to be called lost for that."""
    for_us = cast.time_us()
    cast.server.freezes += 1
    cast.server.freeze(for_us)
    cast.server.beats.excuse(for_us)
    launchers = [worker.launcher for worker in cast.workers if worker.launcher is not None]
    for process in (*cast.workers, *launchers, *cast.clients):
        process.freeze(for_us)
    return True


def suspend(cast: Cast) -> bool:
    """Let the machine sleep: both clocks have gone on when it wakes, but not the one that sleeps are measured by."""
    for_ms = cast.world.dice.choice((10_000, 3_600_000, 30 * 3_600_000))
    cast.server.freezes += 1  # who compares times must not
    cast.server.boot_skew_ms += for_ms
    cast.server.wall_skew_ms += for_ms
    return True


def slow_flushes(cast: Cast) -> bool:
    """Let each flush take as long as some beats, for a while."""
    cast.server.committer.slow_until_us = cast.world.now_us + cast.time_us()
    return True


def failing_flush(cast: Cast) -> bool:
    """Let one flush fail; the next would work again, and would say nothing of what is lost."""
    cast.server.committer.fails_next = True
    return True


def store_failure(cast: Cast) -> bool:
    """Let every later write and flush fail."""
    cast.server.disk.fail("input/output error")
    return True


def disk_full(cast: Cast) -> bool:
    """Leave no room on the disk for a while."""
    if not cast.server.is_listening or cast.server.is_disk_low:
        return False
    cast.server.fill_disk(cast.time_us())
    return True


def clock_jump(cast: Cast) -> bool:
    """Let the system's clock jump, back or forth."""
    cast.server.freezes += 1  # who compares times must not
    cast.server.wall_skew_ms += cast.world.dice.choice((-3_600_000, -2_000, 1_500, 86_400_000))
    return True


def worker_kill(cast: Cast, *, names: bool) -> bool:
    """Kill a worker and all that it runs."""
    worker = cast.worker()
    if worker is None:
        return False
    worker.kill(names_predecessor=names)
    return True


def worker_freeze(cast: Cast, *, with_launcher: bool) -> bool:
    """Let a worker stand still; what it runs goes on, or not."""
    worker = cast.worker()
    if worker is None or worker.is_frozen:
        return False
    for_us = cast.time_us()
    worker.freeze(for_us)
    if with_launcher and worker.launcher is not None:
        worker.launcher.freeze(for_us)
    return True


def freeze_at_a_pause(cast: Cast) -> bool:
    """Let a worker and its launcher stand still while queues are shut: what it has not started when it is back, lost
    and claimed perhaps, must not start.
    """
    waiting = {
        worker: list(worker.slots.held.values()).count(Phase.ASSIGNED) for worker in cast.workers if worker.is_up
    }
    worker = max(waiting, key=lambda one: waiting[one], default=None)
    if worker is None or worker.is_frozen or worker.launcher is None:
        return False
    for_us = cast.time_us() if cast.world.chance(0.3) else 5 * cast.server.beat_us  # so that it is lost
    worker.freeze(for_us)
    worker.launcher.freeze(for_us)
    client = cast.world.dice.choice(cast.clients)
    for queue in sorted({lane.queue for lane in cast.server.engine.live.lanes.values()}):
        client.tell(SetQueue(queue, paused=True) if cast.world.chance(0.5) else SetQueue(queue, max=1))
    return True


def launcher_death(cast: Cast) -> bool:
    """Kill a launcher and what it runs."""
    worker = cast.worker()
    if worker is None or worker.launcher is None or worker.launcher.is_dead:
        return False
    worker.kill_launcher()
    return True


def worker_trouble(cast: Cast) -> bool:
    """Let a worker be unable to start anything for a while."""
    worker = cast.worker()
    if worker is None or worker.launcher is None:
        return False
    worker.launcher.trouble(cast.time_us())
    return True


def worker_leave(cast: Cast) -> bool:
    """Tell a worker to leave."""
    worker = cast.worker()
    if worker is None or worker.slots.is_leaving:
        return False
    worker.leave()
    return True


def drain_at_a_cut(cast: Cast) -> bool:
    """Drain a worker that runs something, with a deadline, and cut it off before that, or hide the server for a while:
    what it is told when it is back is what is left of its time.
    """
    busy = [worker for worker in cast.workers if worker.is_up and not worker.slots.is_idle]
    if not busy:
        return False
    worker, client, world = cast.world.dice.choice(busy), cast.world.dice.choice(cast.clients), cast.world
    name, deadline_ms = f"w{worker.id:016x}", world.dice.choice((0, 500, 2_000))
    client.tell(Drain(name, deadline_ms=deadline_ms))
    if world.chance(0.7):
        world.after(world.wait_us(SECOND), _cut, cast, worker)
    world.after(8 * SECOND, client.tell, Drain(name, on=False))
    return True


def _cut(cast: Cast, worker: Worker) -> None:
    if worker.line.end is not None:
        cast.server.network.cut(worker.line.end)


def worker_cut(cast: Cast, *, near: bool = True, far: bool = True) -> bool:
    """Cut a worker's connection; who does not notice goes on with half of it."""
    worker = cast.worker()
    if worker is None or worker.line.end is None:
        return False
    cast.server.network.cut(worker.line.end, near_notices=near, far_notices=far)
    return True


def second_connection(cast: Cast) -> bool:
    """Let a worker dial again while the server still has the old connection, and bytes of it are on their way."""
    worker = cast.worker()
    if worker is None or worker.line.end is None:
        return False
    return worker.line.dial_again()


def partition(cast: Cast) -> bool:
    """Let nothing pass between a worker and the server for a while; then everything that was sent."""
    worker = cast.worker()
    if worker is None:
        return False
    cast.server.network.part(worker.name, worker.line.end, cast.time_us())
    return True


def wrong_held(cast: Cast) -> bool:
    """Let a session's set disagree with its worker's for good: the beats must notice, and the list is asked for."""
    worker = cast.worker()
    session = cast.server.registry.worker(worker.id) if worker is not None and cast.server.is_up else None
    if session is None or not session.peer.is_joined:
        return False
    session.peer._held.update((AttemptRef(1 << 60, 0, 0, 1, 1),))
    return True


def client_cut(cast: Cast, *, is_half: bool) -> bool:
    """Cut a client's connection."""
    client = cast.world.dice.choice(cast.clients)
    return client.cut(near_notices=not is_half, far_notices=cast.world.chance(0.5))


def client_freeze(cast: Cast) -> bool:
    """Let a client stand still."""
    cast.server.freezes += 1  # who compares times must not
    cast.world.dice.choice(cast.clients).freeze(cast.time_us())
    return True


def submit_twice(cast: Cast) -> bool:
    """Send a submit once more."""
    return cast.world.dice.choice(cast.clients).duplicate()


def poison(cast: Cast) -> bool:
    """Let some jobs be poison to the server for a while: to what starts them, to what forgets them, to what is said of
    them; and now and then a lane.
    """
    alive: list[int] = []
    ended: list[int] = []
    for (job, _), progress in cast.server.ledger.progress.items():
        (ended if progress.is_ended else alive).append(job)
    for job in cast.world.dice.sample(alive, min(len(alive), 5)):
        plant = cast.server.poison.plant if cast.world.chance(0.7) else cast.server.poison.plant_words
        plant(job, cast.time_us())
    lanes = sorted(cast.server.engine.live.lanes)
    if lanes and cast.world.chance(0.4):
        cast.server.poison.plant_lane(cast.world.dice.choice(lanes), cast.time_us())
    if cast.world.chance(0.4):  # a walk over all jobs meets it
        client = cast.world.dice.choice(cast.clients)
        for command in client.script.verbs.wide():
            client.tell(command)
    for job in ended[:3]:
        cast.server.poison.plant(job, 20 * SECOND)
    return bool(alive)


def server_crash_among_poison(cast: Cast) -> bool:
    """Let jobs and lanes be poison, and kill the server: it comes to them again while workers come back."""
    if not poison(cast):
        return False
    cast.server.after(cast.world.wait_us(SECOND), server_crash_in_a_row, cast)
    return True


KINDS: Final[dict[str, Callable[[Cast], bool]]] = {
    "server crash": server_crash,
    "server crash in a row": server_crash_in_a_row,
    "server crash, a worker cut off": server_crash_at_a_cut,
    "server crash in a sweep": server_crash_in_a_sweep,
    "server stop": server_stop,
    "server freeze": server_freeze,
    "server freeze, a worker cut off": freeze_before_a_cut,
    "everything freezes": freeze_everything,
    "machine suspended": suspend,
    "store failure": store_failure,
    "flush fails once": failing_flush,
    "flushes are slow": slow_flushes,
    "disk nearly full": disk_full,
    "wall clock jump": clock_jump,
    "worker kill, successor names it": lambda cast: worker_kill(cast, names=True),
    "worker kill, successor does not": lambda cast: worker_kill(cast, names=False),
    "worker freeze": lambda cast: worker_freeze(cast, with_launcher=False),
    "worker freeze, launcher too": lambda cast: worker_freeze(cast, with_launcher=True),
    "worker freeze at a pause": freeze_at_a_pause,
    "launcher death": launcher_death,
    "worker in trouble": worker_trouble,
    "worker told to leave": worker_leave,
    "worker drained, then cut": drain_at_a_cut,
    "worker cut": worker_cut,
    "worker half-open at the server": lambda cast: worker_cut(cast, far=False),
    "worker half-open at the worker": lambda cast: worker_cut(cast, near=False),
    "worker on a second connection": second_connection,
    "worker partition": partition,
    "held set goes wrong at the server": wrong_held,
    "client cut": lambda cast: client_cut(cast, is_half=False),
    "client half-open": lambda cast: client_cut(cast, is_half=True),
    "client freeze": client_freeze,
    "submit sent twice": submit_twice,
    "jobs are poison": poison,
    "server crash among poison": server_crash_among_poison,
}
