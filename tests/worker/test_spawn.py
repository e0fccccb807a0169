"""A program that somebody still writes to: whoever writes one and submits it at once waits for a moment, unseen."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tq.wire.body import Body
from tq.worker import spawn
from tq.worker.program import Program, SpawnError
from tq.worker.spawn import Files, Spawner

TO_NOWHERE = Files(b"/dev/null", b"/dev/null")


class Scene:
    """A script, its writer, and a clock that only waiting moves; `meanwhile` happens in the first wait."""

    def __init__(self, place: Path) -> None:
        self.path = place / "script"
        self.path.write_text("#!/bin/sh\nexit 7\n")
        self.path.chmod(0o755)
        self.writer = os.open(self.path, os.O_WRONLY)
        self.now = 1_000.0
        self.waits = 0
        self.spawner = Spawner()
        self.meanwhile: Callable[[], object] = lambda: None

    def sleep(self, for_s: float) -> None:
        self.now += for_s
        self.waits += 1
        if self.waits == 1:
            self.meanwhile()

    def run(self) -> int:
        program = Program(Body((bytes(self.path),), b"/"), {})
        spawned = self.spawner.start(program, program.argv, {}, None, TO_NOWHERE)
        return os.waitstatus_to_exitcode(os.waitpid(spawned.pid, 0)[1])


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    umask, directory = os.umask(0o022), Path.cwd()
    scene = Scene(tmp_path)
    monkeypatch.setattr(spawn.time, "sleep", scene.sleep)
    monkeypatch.setattr(spawn.time, "monotonic", lambda: scene.now)
    yield scene
    os.chdir(directory)
    os.umask(umask)


def test_a_program_that_is_closed_in_a_moment_runs(scene):
    scene.meanwhile = lambda: os.close(scene.writer)

    assert scene.run() == 7
    assert scene.waits == 1


def test_one_that_stays_open_cannot_be_started_and_is_waited_for_once_a_second(scene):
    for waits in (16, 16, 32):
        with pytest.raises(SpawnError, match="to write to it") as caught:
            scene.run()
        assert (caught.value.code, scene.waits) == (126, waits)
        scene.now += 0.6
    os.close(scene.writer)

    assert scene.run() == 7
