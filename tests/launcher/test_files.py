"""Output that goes into files of the worker's host. Real launchers; all files are below tmp_path."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.launcher import Link, body, ref, usage
from tq.core.model.task import Cause
from tq.core.vocabulary import AttemptRef


@pytest.fixture
def link() -> Iterator[Link]:
    with Link() as one:
        yield one


def sh(text: str, cwd: Path, **fields: object) -> bytes:
    return body("sh", "-c", text, cwd=str(cwd), **fields)


def descriptors(link: Link) -> list[Path]:
    return sorted(Path(f"/proc/{link.process.pid}/fd").iterdir())


def test_a_stream_goes_into_its_file_and_the_other_to_the_worker(link, tmp_path):
    end = link.run(sh("echo out; echo err >&2", tmp_path, stdout=b"%t-%n.log"), 42)

    assert (tmp_path / "42-1.log").read_text() == "out\n"
    assert (link.text(ref(42)), link.text(ref(42), 2)) == (b"", b"err\n")
    assert usage(end).written == (0, 4)


def test_both_may_go_into_one_file_in_order_and_with_the_submitters_umask(link, tmp_path):
    name = os.fsencode(tmp_path / "all")
    end = link.run(
        sh("for i in 1 2 3; do echo out $i; echo err $i >&2; done", tmp_path, stdout=name, stderr=name, umask=0o027)
    )

    assert (end.cause, end.code) == (Cause.EXIT, 0)
    assert (tmp_path / "all").read_text() == "".join(f"out {i}\nerr {i}\n" for i in (1, 2, 3))
    assert stat.S_IMODE((tmp_path / "all").stat().st_mode) == 0o640


def test_each_task_of_an_array_has_its_own(link, tmp_path):
    refs = [ref(7, member) for member in range(3)]
    link.spawn(sh("echo $TQ_MEMBER", tmp_path, stdout=b"%j.%a"), refs, is_array=True)
    link.until(lambda: len(link.ends) == 3)

    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {f"7.{i}": f"{i}\n" for i in (1, 2, 3)}


def test_a_first_attempt_begins_the_file_anew_and_a_later_one_goes_on(link, tmp_path):
    (tmp_path / "log").write_text("of an earlier run\n")
    for attempt in (1, 2):
        one = AttemptRef(7, 0, 0, attempt, 1000 + attempt)
        link.spawn(sh("echo $TQ_ATTEMPT", tmp_path, stdout=b"log"), [one])
        link.until(lambda: one in link.ends)  # noqa: B023 - it is over within the round

    assert (tmp_path / "log").read_text() == "1\n2\n"


def test_an_attempt_before_which_nothing_has_run_begins_the_file_anew_whatever_its_number(link, tmp_path):
    (tmp_path / "log").write_text("of another job\n")
    one = AttemptRef(7, 0, 0, 2, 1002)
    link.spawn(sh("echo $TQ_ATTEMPT", tmp_path, stdout=b"log"), [one], has_run=False)
    link.until(lambda: one in link.ends)

    assert (tmp_path / "log").read_text() == "2\n"


def test_what_does_not_end_by_itself_is_stopped_as_any_other(link, tmp_path):
    one = ref(1)
    link.spawn(sh("echo ready; exec sleep 1000", tmp_path, stdout=b"out", stderr=b"err"), [one])
    link.until(lambda: one in link.started)
    link.stop(one)

    assert (tmp_path / "out").read_text() == "ready\n"


def test_it_may_be_thrown_away(link, tmp_path):
    end = link.run(sh("head -c 10000000 /dev/zero", tmp_path, stdout=b"/dev/null"))
    assert (end.cause, end.code, usage(end).written) == (Cause.EXIT, 0, (0, 0))


@pytest.mark.parametrize(
    "path, why",
    [
        ("missing/out", "No such file or directory"),
        ("directory", "Is a directory"),
        ("link", "is a symbolic link"),
        ("fifo", "No such device or address"),  # nobody reads it: we do not wait for somebody
        ("file/out", "Not a directory"),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_file_that_cannot_be_written_says_so_and_nothing_runs(link, tmp_path, path, why):
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "link").symlink_to("victim")
    os.mkfifo(tmp_path / "fifo")
    for number, fields in enumerate(({"stdout": os.fsencode(path)}, {"stderr": os.fsencode(path)}), 1):
        end = link.run(sh("touch ran", tmp_path, **fields), number)
        assert (end.cause, end.code) == (Cause.SPAWN_FAILED, 126)
        assert usage(end).error == f"{next(iter(fields))} {path}: {why}"

    assert not (tmp_path / "ran").exists()
    assert (tmp_path / "victim").read_text() == "precious"
    assert link.run(body("true"), 3).code == 0


def test_no_descriptor_is_lost_however_a_spawn_ends(link, tmp_path):
    link.run(body("true"), 1)
    before = descriptors(link)
    for number, fields in enumerate(
        ({"stdout": b"a"}, {"stderr": b"b"}, {"stdout": b"a", "stderr": b"no/b"}, {"stdout": b"no/a"}), 2
    ):
        link.run(sh("true", tmp_path, **fields), number)
        link.run(body("/no/such/program", cwd=str(tmp_path), **fields), 10 + number)

    assert descriptors(link) == before
