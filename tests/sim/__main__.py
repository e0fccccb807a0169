"""The command line of the simulator.

python -m tests.sim --seeds 1000 --jobs 2      run many seeds, print what they showed together
python -m tests.sim --seed 7                   replay one, with its history (--all: everything that happened)
python -m tests.sim --seed 7 --shrink          replay a failing one with as few faults as it needs
"""

import argparse
import sys
import time
from collections.abc import Iterator
from functools import partial
from multiprocessing import get_context

from tests.sim.coverage import Coverage
from tests.sim.run import Result, run_seed
from tests.sim.shrink import shrink


def main(arguments: list[str]) -> int:
    """Run, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the first one")
    parser.add_argument("--seed", type=int, help="replay this one")
    parser.add_argument("--all", action="store_true", help="with --seed: print every message and command")
    parser.add_argument("--shrink", action="store_true", help="with --seed: leave out the faults that it does not need")
    parser.add_argument("--left-out", default="", help="with --seed: numbers of faults that do not happen, as 0,3")
    parser.add_argument("--lines", type=int, default=60, help="with --seed: how many lines of the history")
    parser.add_argument("--commands", type=int, default=2_000, help="at least so many in each seed")
    parser.add_argument("--faults", type=int, default=20, help="at least so many in each seed")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    options = parser.parse_args(arguments)
    if options.seed is not None:
        return replay(options)
    return many(options)


def replay(options: argparse.Namespace) -> int:
    """Run one seed and show what happened in it."""
    left_out = frozenset(int(number) for number in options.left_out.split(",") if number)
    if options.shrink:
        shrunk = shrink(options.seed, commands=options.commands, faults=options.faults)
        left_out = shrunk.left_out
        numbers = ",".join(map(str, sorted(left_out)))
        print(f"{len(left_out)} of {shrunk.result.faults} faults not needed ({shrunk.runs} runs): --left-out {numbers}")
    echo = print if options.all else None
    result = run_seed(options.seed, commands=options.commands, faults=options.faults, echo=echo, left_out=left_out)
    if not options.all and (result.story or options.lines):
        print("\n".join(result.story or result.history[-options.lines :]))
    print(_line(result))
    print(result.violation or "every promise was kept")
    return 1 if result.violation else 0


def many(options: argparse.Namespace) -> int:
    """Run many seeds and show what they show together."""
    coverage = Coverage()
    failed = 0
    began = time.perf_counter()
    for result in _results(options):
        coverage.add(result)
        if result.violation:
            failed += 1
            print("\n".join(result.story))
            print(f"{result.violation}\n  replay: {_command(result.seed, options)}", flush=True)
        if coverage.seeds % 100 == 0:
            print(f"{coverage.seeds} seeds, {failed} failed, {time.perf_counter() - began:.0f} s", file=sys.stderr)
    seconds = time.perf_counter() - began
    print(coverage)
    blanks = coverage.rare() + coverage.empty_cells()
    print("\nnot seen: " + ("; ".join(blanks) if blanks else "nothing, no zero in any table"))
    print(
        f"{coverage.seeds} seeds from {options.first}, {failed} failed; {coverage.commands} commands "
        f"(at least {coverage.commands_min} in each), {coverage.faults} faults (at least {coverage.faults_min}); "
        f"{seconds:.0f} s with {options.jobs} process(es), {seconds * options.jobs / coverage.seeds:.2f} s a seed"
    )
    return 1 if failed else 0


def _results(options: argparse.Namespace) -> Iterator[Result]:
    seeds = range(options.first, options.first + options.seeds)
    work = partial(run_seed, commands=options.commands, faults=options.faults)
    if options.jobs == 1:
        yield from map(work, seeds)
        return
    with get_context("forkserver").Pool(options.jobs) as pool:
        yield from pool.imap(work, seeds, chunksize=4)


def _command(seed: int, options: argparse.Namespace) -> str:
    return f"python -m tests.sim --seed {seed} --commands {options.commands} --faults {options.faults}"


def _line(result: Result) -> str:
    return (
        f"seed {result.seed}: {result.commands} commands, {result.faults} faults, {result.virtual_s:.1f} virtual s, "
        f"trace {result.digest & 0xFFFFFFFFFFFFFFFF:016x}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
