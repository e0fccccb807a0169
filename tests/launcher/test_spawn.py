"""A program that somebody still writes to: whoever writes one and submits it at once waits for a moment, unseen."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tq.launcher import spawn
from tq.launcher.program import Program, SpawnError, search
from tq.launcher.spawn import Files, Spawner
from tq.wire.body import Body

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
        pid, _, _ = self.spawner.start(program, program.argv, {}, None, TO_NOWHERE)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


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


# ---------------------------------------------------------------- what is no fault of the task's


DOES_NOT_SAY = "the disk does not say"
GONE = [errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH]


@pytest.fixture(params=GONE, ids=errno.errorcode.get)
def failing(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory on a disk that fails, or whose server is gone."""
    look, enter, bad = os.stat, os.chdir, tmp_path / "bad"

    def guarded(act: Callable[..., Any]) -> Callable[..., Any]:
        def on_disk(path: Any, *rest: Any, **named: Any) -> Any:
            if os.fsencode(path).startswith(bytes(bad)):
                raise OSError(request.param, DOES_NOT_SAY)
            return act(path, *rest, **named)

        return on_disk

    monkeypatch.setattr(os, "stat", guarded(look))
    monkeypatch.setattr(os, "chdir", guarded(enter))
    return bad


def test_a_directory_that_the_disk_does_not_say_is_not_missing(failing):
    program = Program(Body((b"true",), bytes(failing)), {})
    with pytest.raises(OSError, match=DOES_NOT_SAY):
        Spawner().start(program, program.argv, {}, None, TO_NOWHERE)


def test_a_program_is_looked_for_behind_a_disk_that_fails_and_not_missing_if_it_is_not_there(failing):
    shell = search(b"sh", b"/usr/bin:/bin")
    assert search(b"sh", b"%b:/usr/bin:/bin" % bytes(failing)) == shell
    with pytest.raises(OSError, match=DOES_NOT_SAY):
        search(b"no-such-program", b"%b:/usr/bin" % bytes(failing))
    with pytest.raises(SpawnError, match="not found"):
        search(b"no-such-program", b"/usr/bin")
