"""Commands that broke the engine are kept, privately and boundedly, and never shown in a log."""

import stat
from pathlib import Path

import msgspec
import pytest

from tests.server.rig import submit
from tq.core.vocabulary import Command, Done, Times
from tq.server.commit.intake import Look
from tq.server.commit.replay import FailedCommands, files_max
from tq.wire.body import Body
from tq.wire.codec import dumps

SECRET = submit("k", body=dumps(Body((b"x",), b"/", {"PASSWORD": b"hunter2"})))


def test_a_failed_command_can_be_read_back_with_its_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FailedCommands(tmp_path).keep(SECRET, Times(5, 6), ValueError("why"))
    (path,) = (tmp_path / "failed").iterdir()
    steady_ms, wall_ms, command = msgspec.msgpack.decode(path.read_bytes(), type=tuple[int, int, Command])

    assert (steady_ms, wall_ms, command) == (5, 6, SECRET)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    said = capsys.readouterr().err
    assert "internal_error" in said
    assert "ValueError: why" in said
    assert "hunter2" not in said


def test_the_number_of_files_is_bounded(tmp_path: Path) -> None:
    failed = FailedCommands(tmp_path)
    for number in range(files_max + 5):
        failed.keep(submit(str(number)), Times(number, number), ValueError("why"))
    failed.keep(Look(lambda _: Done("")), Times(0, 0), ValueError("why"))

    assert len(list((tmp_path / "failed").iterdir())) == files_max
