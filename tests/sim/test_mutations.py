"""The simulator can fail: each of these breaks one promise on purpose, and must be caught within a few seeds."""

import re
from collections.abc import Callable, Iterator, Sequence

import pytest
from msgspec.structs import replace

from tests.mutants.mutants import ignore_what_the_server_has_and_the_worker_does_not_hold, release_before_the_flush
from tests.sim.faults import NAMES
from tests.sim.run import run_seed
from tests.sim.shrink import shrink
from tests.sim.story import subject_of
from tq.core.bulk import progress, sweeps, verbs
from tq.core.bulk.verbs import VERBS
from tq.core.change import fence, indexes, step
from tq.core.change.fence import Verdict
from tq.core.change.step import Step
from tq.core.engine import control, dispatch, join, leases, ready, report, submit
from tq.core.engine.engine import Engine, Turn
from tq.core.engine.handlers import CHANGES
from tq.core.model import retry, tables
from tq.core.model.job import Progress
from tq.core.model.task import Phase, State, Trigger
from tq.core.model.timers import TimerKind
from tq.core.placement import quarantine
from tq.core.placement.live import Live, LiveWorker
from tq.core.vocabulary import Assignment, Forget, Recover, Release, Times, WorkerLost
from tq.server.commit import clock
from tq.server.commit.clock import Clock
from tq.server.commit.commit_loop import Pipeline, Point
from tq.server.commit.lease_clock import LeaseClock
from tq.server.sessions.watch import Watch
from tq.server.sessions.worker_protocol import WorkerPeer
from tq.worker.interpreter import Interpreter
from tq.worker.outbox import Outbox
from tq.worker.state import WorkerState

SEEDS_MAX = 30
COMMANDS = 600
FAULTS = 20

Break = Callable[[pytest.MonkeyPatch], None]


def skip_the_attempt_check(patch: pytest.MonkeyPatch) -> None:
    def judge(step, task, ref, worker):
        if task is None:
            return Verdict.STALE
        if task.state is State.RUNNING:
            return Verdict.CURRENT
        return Verdict.CLAIM if task.state is State.QUEUED and task.phase is Phase.LOST else Verdict.STALE

    patch.setattr(fence, "judge", judge)
    patch.setattr(join, "judge", judge)


def skip_the_session_check(patch: pytest.MonkeyPatch) -> None:
    def worker_lost(step, command):
        from tq.core.engine.report import lose_worker

        if command.worker in step.live.workers:
            lose_worker(step, command.worker)

    patch.setitem(CHANGES, WorkerLost, worker_lost)


def release_effects_before_the_flush(patch: pytest.MonkeyPatch) -> None:
    close = Pipeline._close

    def hasty(self: Pipeline, turn) -> Iterator[Point]:
        for point in close(self, turn):
            if point is Point.WRITTEN and self._flight.effects:
                self._release(self._flight.effects)
                self._flight.effects = ()
            yield point

    patch.setattr(Pipeline, "_close", hasty)


def forget_the_array_cursor(patch: pytest.MonkeyPatch) -> None:
    touch = step._touch

    def forgetful(progress, members, trigger) -> None:
        cursor = progress.cursor
        touch(progress, members, trigger)
        if trigger is Trigger.LEASE and members.stop % 4 == 0:
            progress.cursor = cursor

    patch.setattr(step, "_touch", forgetful)


def believe_that_nothing_has_run(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(leases, "Assignment", lambda ref, value, entry, has_run: Assignment(ref, value, entry, False))


def keep_what_lost_workers_had(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LeaseClock, "tick", lambda self, late_s=0.0: [])


def never_take_a_job_out_of_its_lane(patch: pytest.MonkeyPatch) -> None:
    settle_ready = Step._settle_ready

    def lazy(self: Step, progress, lane, entry) -> None:
        if progress.is_startable(lane) or progress.size % 3:
            settle_ready(self, progress, lane, entry)

    patch.setattr(Step, "_settle_ready", lazy)


def forget_reports_at_a_cut(patch: pytest.MonkeyPatch) -> None:
    disconnect = Outbox.disconnect

    def forgetful(self: Outbox):
        self._deliveries.clear()
        return disconnect(self)

    patch.setattr(Outbox, "disconnect", forgetful)


def say_nothing_of_a_dead_launcher(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(WorkerState, "launcher_died", lambda self, cause=0: [])


def drop_output_of_what_ended_before_the_cut(patch: pytest.MonkeyPatch) -> None:
    def knows(self: WorkerPeer, ref) -> bool:
        return ref in self._held or any(ref in delivery.attempts for delivery in self._deliveries.values())

    patch.setattr(WorkerPeer, "knows", knows)


def miss_a_change(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Watch, "changed", lambda self, job: ())


BREAKS: tuple[Break, ...] = (
    skip_the_attempt_check,
    skip_the_session_check,
    release_before_the_flush,
    release_effects_before_the_flush,
    forget_the_array_cursor,
    ignore_what_the_server_has_and_the_worker_does_not_hold,
    believe_that_nothing_has_run,
    keep_what_lost_workers_had,
    never_take_a_job_out_of_its_lane,
    forget_reports_at_a_cut,
    say_nothing_of_a_dead_launcher,
    drop_output_of_what_ended_before_the_cut,
    miss_a_change,
)


def hold_only_what_is_untouched(patch: pytest.MonkeyPatch) -> None:
    def is_startable(self: Progress, lane: int) -> bool:
        hold, self.hold = self.hold, False
        try:
            return startable(self, lane)
        finally:
            self.hold = hold

    startable = Progress.is_startable
    patch.setattr(Progress, "is_startable", is_startable)


def take_a_paused_queue_for_open(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Live, "may_start", lambda self: {})


def pass_over_a_job_between_two_slices(patch: pytest.MonkeyPatch) -> None:
    def hasty(sweep, job):
        return replace(sweep, job=job + 2, member=0) if job < sweep.last else None

    patch.setattr(sweeps, "following", hasty)


def do_what_was_only_asked(patch: pytest.MonkeyPatch) -> None:
    apply = Turn.apply

    def eager(self: Turn, command, submitter=""):
        is_asked = isinstance(command, Release) and command.dry_run
        return apply(self, replace(command, dry_run=False) if is_asked else command, submitter)

    patch.setattr(Turn, "apply", eager)


def leave_the_dead_letters_of_what_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(verbs, "forget_dead_letter", lambda step, key, task: None)
    patch.setitem(VERBS, Forget, VERBS[Forget]._replace(member=lambda acting, key, task: None))


def count_on_in_a_new_round(patch: pytest.MonkeyPatch) -> None:
    move = Step.move

    def forgetful(self: Step, key, task, trigger, **fields):
        if trigger is Trigger.RETRY and task is not None:
            fields |= {"failures": task.failures, "losses": task.losses}
        return move(self, key, task, trigger, **fields)

    patch.setattr(Step, "move", forgetful)


def try_once_more_than_may_be(patch: pytest.MonkeyPatch) -> None:
    after_failure = retry.after_failure
    patch.setattr(retry, "after_failure", lambda job, failures, *how: after_failure(job, failures - 1, *how))


def let_nothing_run_alone(patch: pytest.MonkeyPatch) -> None:
    for module in (retry, submit):  # retry.py has it for all but the submit
        patch.setattr(module, "runs_alone", lambda crash_limit, losses: False)


def take_the_second_flush_for_the_first(patch: pytest.MonkeyPatch) -> None:
    def again(self: Pipeline, error) -> None:
        self._flush(self._flight.sequence)

    patch.setattr(Pipeline, "fail", again)


def lease_to_who_drains_or_rests(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LiveWorker, "may_lease", lambda self, steady_ms: self.session is not None)


def follow_the_wall_clock(patch: pytest.MonkeyPatch) -> None:
    times = Clock.times

    def jumping(self: Clock) -> Times:
        at = times(self)
        return Times(at.wall_ms, at.wall_ms)

    patch.setattr(Clock, "times", jumping)


def forget_a_dead_letter_by_age(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Progress, "dead_letters", property(lambda self: 0))


POLICIES: tuple[Break, ...] = (
    hold_only_what_is_untouched,
    take_a_paused_queue_for_open,
    pass_over_a_job_between_two_slices,
    do_what_was_only_asked,
    leave_the_dead_letters_of_what_is_forgotten,
    count_on_in_a_new_round,
    try_once_more_than_may_be,
    let_nothing_run_alone,
    take_the_second_flush_for_the_first,
    lease_to_who_drains_or_rests,
    follow_the_wall_clock,
    forget_a_dead_letter_by_age,
)


def forget_the_beats_of_the_life_before(patch: pytest.MonkeyPatch) -> None:
    def recover(step, command):
        answer = control.recover(step, command)
        step.meta().held_until_ms = 0
        return replace(answer, held_ms=0)

    patch.setitem(CHANGES, Recover, recover)


def go_by_longer_beats_than_the_server(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Interpreter, "bound", lambda self, until_s: None)


def never_try_again_what_failed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(quarantine, "put_off_ms", (1 << 40, 1 << 40))


def stop_at_a_job_that_rests(patch: pytest.MonkeyPatch) -> None:
    jobs_in_order = ready.jobs_in_order

    def shy(step, number, resting):
        return iter(()) if any(key[0] == number for key in resting) else jobs_in_order(step, number, resting)

    patch.setattr(ready, "jobs_in_order", shy)


def blame_the_lane_for_its_job(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(dispatch, "to_blame", lambda step, resting: step.at[:1])


def keep_the_half_of_what_failed(patch: pytest.MonkeyPatch) -> None:
    def attempt(self: Turn, step, work, *what):
        try:
            work(step, *what)
        except Exception as error:  # noqa: BLE001 - as the real one
            step.settle()
            self._merge(step)
            return error
        step.settle()
        self._merge(step)
        return None

    patch.setattr(Turn, "_attempt", attempt)


def hear_no_recall(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(WorkerState, "_recall", lambda self, attempts: [])


def hand_back_what_is_recalled_unasked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(WorkerState, "_recall", lambda self, attempts: self._hand_back(tuple(attempts)))


def let_an_older_word_undo_a_later_one(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sweeps, "is_overtaken", lambda acting, progress: False)


def pass_over_a_job_of_each_sweep_at_a_start(patch: pytest.MonkeyPatch) -> None:
    def recover(step, command):
        for (number,), sweep in step.overlay.scan(tables.SWEEP, (0,), (1 << 62,), 1_000):
            if sweep.job < sweep.last:
                step.overlay.put(tables.SWEEP, (number,), replace(sweep, job=sweep.job + 1, member=0))
        return control.recover(step, command)

    patch.setitem(CHANGES, Recover, recover)


def queue_again_what_was_being_cancelled(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(report, "is_cancelled", lambda task: False)


def forget_a_key_with_its_job(patch: pytest.MonkeyPatch) -> None:
    close_job = Step.close_job

    def forgetful(self: Step, key) -> None:
        self.overlay.delete(tables.KEY, (self.job(key).key,))
        close_job(self, key)

    patch.setattr(Step, "close_job", forgetful)


def wait_no_time(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(indexes, "retry_timer", lambda key, task: (0, max(task.due_ms - 3_000, 0), TimerKind.RETRY, *key))


def sleep_through_what_is_due(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Engine, "_first_due_ms", lambda self, of: None)


def let_no_time_pass_while_the_server_is_down(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(clock, "DOWN_MS_MAX", 0)


def leave_what_a_pause_finds_where_it_is(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(control, "recall_assigned", lambda step, job: None)


def charge_a_loss_to_all_that_was_there(patch: pytest.MonkeyPatch) -> None:
    lose = report.lose
    patch.setattr(report, "lose", lambda step, key, task, charged: lose(step, key, task, charged=True))


def keep_the_charge_of_what_is_claimed(patch: pytest.MonkeyPatch) -> None:
    def claim(step, ref, task, worker, phase):
        return step.move(ref.task, task, Trigger.CLAIM, worker=worker, phase=phase, charged=False)

    for module in (fence, join):
        patch.setattr(module, "claim", claim)


def remove_what_has_ended_since(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(progress.Acting, "is_late", lambda self, ended_ms: False)


def drop_the_parts_of_a_sweep_that_failed(patch: pytest.MonkeyPatch) -> None:
    store = sweeps.store
    patch.setattr(sweeps, "store", lambda step, sweep: None if sweep.part_of else store(step, sweep))


STOPS_AND_TIMES: tuple[Break, ...] = (
    queue_again_what_was_being_cancelled,
    leave_what_a_pause_finds_where_it_is,
    charge_a_loss_to_all_that_was_there,
    keep_the_charge_of_what_is_claimed,
    forget_a_key_with_its_job,
    wait_no_time,
    sleep_through_what_is_due,
    let_no_time_pass_while_the_server_is_down,
)

CUTS = ("server crash, a worker cut off", "worker partition", "client cut")
POISONS = ("jobs are poison", "server stop", "worker cut")
SWEEPS = ("server crash in a sweep", "worker cut")
FOCUSED: tuple[tuple[Break, tuple[str, ...]], ...] = (  # caught where these faults come often
    (forget_the_beats_of_the_life_before, CUTS),
    (go_by_longer_beats_than_the_server, CUTS),
    (never_try_again_what_failed, POISONS),
    (stop_at_a_job_that_rests, POISONS),
    (blame_the_lane_for_its_job, POISONS),
    (keep_the_half_of_what_failed, POISONS),
    (drop_the_parts_of_a_sweep_that_failed, POISONS),
    (hear_no_recall, CUTS),
    (hand_back_what_is_recalled_unasked, CUTS),
    (let_an_older_word_undo_a_later_one, SWEEPS),
    (pass_over_a_job_of_each_sweep_at_a_start, SWEEPS),
    (remove_what_has_ended_since, SWEEPS),
)


def caught(seeds_max: int, kinds: Sequence[str] = NAMES) -> str:
    for seed in range(1, seeds_max + 1):
        result = run_seed(seed, commands=COMMANDS, faults=FAULTS, kinds=kinds)
        if result.violation:
            print(f"caught in seed {seed}: {result.violation[:200]}")
            assert not re.search(r"\b(Type|Attribute|Name)Error\(", result.violation), "the break fits the code no more"
            return result.violation
    return ""


@pytest.mark.parametrize("broken", BREAKS, ids=lambda broken: broken.__name__)
def test_a_broken_promise_is_caught(broken: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch)

    assert caught(SEEDS_MAX)


@pytest.mark.parametrize("broken", [*POLICIES, *STOPS_AND_TIMES], ids=lambda broken: broken.__name__)
def test_a_broken_policy_is_caught(broken: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch)

    assert caught(SEEDS_MAX)


@pytest.mark.parametrize("broken, kinds", FOCUSED, ids=[broken.__name__ for broken, _ in FOCUSED])
def test_what_few_faults_bring_to_light_is_caught(
    broken: Break, kinds: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch)

    assert caught(SEEDS_MAX, kinds)


def test_a_failing_seed_is_told_as_a_story_and_shrinks(monkeypatch: pytest.MonkeyPatch) -> None:
    try_once_more_than_may_be(monkeypatch)
    seed = next(seed for seed in range(1, SEEDS_MAX) if run_seed(seed, commands=COMMANDS, faults=FAULTS).violation)

    shrunk = shrink(seed, commands=COMMANDS, faults=FAULTS)

    smaller = run_seed(seed, commands=COMMANDS, faults=FAULTS, left_out=shrunk.left_out)
    assert smaller.violation == shrunk.result.violation != ""
    assert shrunk.runs > 1
    named = subject_of(shrunk.result.violation)
    assert named is not None
    assert f"({named[0]}, 0, {named[1]})" in shrunk.result.violation
    assert any(f"({named[0]}, 0, {named[1]})/1 RUNNING" in line for line in shrunk.result.story)
    assert not any(f"({named[0] + 1}, 0," in line for line in shrunk.result.story)
