"""The thread that flushes, and the trio loop that steps the pipeline."""

import threading
from typing import Any

import pytest
import trio

from tests.server.rig import submit
from tq import errors
from tq.core.engine.engine import Engine
from tq.core.vocabulary import Answer, List, Recover, Recovered, Times
from tq.server.commit.commit_loop import Pipeline
from tq.server.commit.committer import Committer, run_pipeline
from tq.server.commit.intake import Inlet, Intake, Request
from tq.store.memory import MemoryStore


class Rig:
    """A pipeline with a real committer."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.intake = Intake()
        self.inlet = self.intake.inlet()
        self.recovered: Recovered | None = None
        self.committer = Committer(store, self._flushed, self._fail)
        self.pipeline = Pipeline(
            Engine(store),
            store,
            self.intake,
            times=lambda: Times(round(trio.current_time() * 1_000), 1),
            lap_ms=lambda: 0.0,
            flush=self.committer.flush,
            release=lambda _: None,
            rereads=lambda _: (),
            on_bug=lambda *_: None,
        )

    async def run(self) -> None:
        self.committer.start()
        try:
            await run_pipeline(self.pipeline, Recover(7), self._recover)
        finally:
            assert self.committer.close()

    async def ask(self, command: Any, inlet: Inlet | None = None) -> Any:
        answers: list[Answer | errors.TqError] = []
        got = trio.Event()

        def reply(answer: Answer | errors.TqError) -> None:
            answers.append(answer)
            got.set()

        (inlet or self.inlet).put([Request(command, "me", reply)])
        with trio.fail_after(20):
            await got.wait()
        return answers[0]

    def _flushed(self, sequence: int) -> None:
        self.pipeline.flushed(sequence)

    def _fail(self, error: errors.StoreError) -> None:
        self.pipeline.fail(error)

    def _recover(self, answer: Recovered) -> None:
        self.recovered = answer


class WatchedStore(MemoryStore):
    """Notes which thread flushes; fails when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.flushers: set[str] = set()
        self.error: Exception | None = None

    def flush(self, sequence: int) -> None:
        self.flushers.add(threading.current_thread().name)
        if self.error is not None:
            raise self.error
        super().flush(sequence)


async def test_flushes_run_in_a_thread_of_their_own_that_ends_with_the_loop() -> None:
    rig = Rig(WatchedStore())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.run)
        for number in range(50):
            answer = await rig.ask(submit(str(number)))
            assert answer.id == str(number + 1)
        rig.pipeline.stop()

    assert rig.store.flushers == {"tq-committer"}  # type: ignore[attr-defined]
    assert rig.recovered is not None
    assert not any(thread.name == "tq-committer" for thread in threading.enumerate())


@pytest.mark.parametrize("error", [errors.StoreError("no space"), ValueError("a bug in the store")])
async def test_a_flush_that_fails_in_whatever_way_ends_the_loop_with_a_store_error(error: Exception) -> None:
    store = WatchedStore()
    rig = Rig(store)
    failures: list[errors.StoreError] = []

    async def run() -> None:
        try:
            await rig.run()
        except errors.StoreError as failure:
            failures.append(failure)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await rig.ask(List())
        store.error = error
        assert isinstance(await rig.ask(submit()), errors.Unknown)
        assert isinstance(await rig.ask(List()), errors.Unknown)

    assert len(failures) == 1


async def test_peers_run_between_turns_that_never_wait_for_a_flush() -> None:
    rig = Rig(MemoryStore())
    reads = others = 0

    def again(_: object) -> None:
        """Ask the next question at once, so that the loop always has work."""
        nonlocal reads
        reads += 1
        if reads < 1_000 and others < 20:
            rig.inlet.put([Request(List(), "me", again)])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.run)
        await rig.ask(List())
        again(None)
        while reads < 1_000 and others < 20:  # that it gets to run is the test
            await trio.lowlevel.checkpoint()
            others += 1
        rig.pipeline.stop()

    assert others == 20
