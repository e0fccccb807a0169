"""Server CPU for each life of an array member: engine and store alone, no network. Prints us a life.

    python bench/engine_lives.py [MEMBERS]

Submit, then lease, report and commit in turns of about 500 ends, as a worker with two slots and short tasks does.
"""

import sys
import tempfile
import time
from pathlib import Path

from tq.core.engine.engine import Engine
from tq.core.vocabulary import AttemptRef, Capacity, End, Join, Recover, Report, Start, Submit, Times
from tq.store.disk import open_store
from tq.store.lock import lock_directory


def main() -> None:
    """Run the lives of one array and print what each cost."""
    members = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as directory:
        store = open_store(lock_directory(Path(directory)))
        engine = Engine(store)
        now_ms = 1
        held: list[AttemptRef] = []

        def turn(*commands: object) -> None:
            nonlocal now_ms
            now_ms += 1
            work = engine.begin(Times(now_ms, now_ms))
            for command in commands:
                work.apply(command)
            done = work.finish()
            if done.changes:
                store.write(done.changes, sequence=done.sequence, epoch=done.epoch, wall_ms=done.wall_ms)
            for effect in done.effects:
                if isinstance(effect, Start):
                    held.extend(assignment.attempt for assignment in effect.attempts)

        turn(Recover(7))
        turn(Join(5, 1, Capacity(slots=2)))
        turn(Submit("", b"body" * 40, size=members, is_array=True))
        begin = time.process_time()
        wall = time.perf_counter()
        ended = 0
        while held:
            ends = tuple(End(ref, 1, 0, 600, b"u" * 20) for ref in held[:500])
            del held[:500]
            ended += len(ends)
            turn(Report(5, 1, 1, ends))
            if not ended % 50_000:
                store.flush(store.sequence)
        print(
            f"{ended} lives: {(time.process_time() - begin) / ended * 1e6:.1f} us CPU each,"
            f" {(time.perf_counter() - wall) / ended * 1e6:.1f} us wall"
        )


if __name__ == "__main__":
    main()
