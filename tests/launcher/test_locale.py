"""A launcher under another locale than UTF-8, and names that are no text: bytes go through as they are."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.launcher import Link, body, call, ref, usage, value_of
from tq.core.model.task import Cause
from tq.launcher import launcher, protocol

UNTEXT = b"gr\xfcn"  # Latin-1, and no UTF-8


@pytest.fixture
def link(monkeypatch: pytest.MonkeyPatch) -> Iterator[Link]:
    """A launcher in the C locale whose interpreter does not make UTF-8 of that by itself.

    The first word about the mode counts, so ours must be there. A locale in Latin-1 behaves alike, and is nowhere.
    """
    command = launcher.command

    def strict(*what: object) -> list[str]:
        words = command(*what)  # type: ignore[arg-type]
        words[words.index("-c") : words.index("-c")] = ["-X", "utf8=0"]
        return words

    monkeypatch.setattr(launcher, "command", strict)
    with Link(environment={"PATH": os.environ["PATH"], "LC_ALL": "C"}) as one:
        yield one


def test_a_variable_may_have_any_name(link):
    end = link.run(body("env", environment={"größe": "€".encode(), "ключ": b"\xff"}))

    assert (end.cause, end.code) == (Cause.EXIT, 0)
    written = b"".join(data for _, data in sorted(link.outputs[ref(1), 1].items()))
    assert "größe=€\n".encode() in written
    assert "ключ=".encode() + b"\xff\n" in written


@pytest.mark.parametrize("name", ["gr€n".encode(), UNTEXT])
def test_what_is_wrong_with_a_path_is_said(link, name, tmp_path):
    place = os.fsencode(tmp_path) + b"/" + name

    assert link.run(body("true", cwd=place), 1).cause == Cause.CWD_MISSING
    assert "No such file" in usage(link.ends[ref(1)]).error
    assert link.run(body("true", stdout=place + b"/log"), 2).cause == Cause.SPAWN_FAILED
    assert link.run(body(place), 3).cause == Cause.SPAWN_FAILED


def test_modules_may_lie_in_a_directory_whose_name_is_no_text(link, tmp_path):
    place = os.fsencode(tmp_path) + b"/" + UNTEXT
    Path(os.fsdecode(place)).mkdir()
    Path(os.fsdecode(place), "deep.py").write_text("import os\ndef here(): return os.getcwdb().hex()\n")
    link.say(protocol.Functions(("deep",), (place,), place))

    assert value_of(link, call("deep:here")) == place.hex()


def test_trouble_with_such_a_directory_is_the_workers(link, tmp_path):
    place = os.fsencode(tmp_path) + b"/" + UNTEXT
    link.say(protocol.Functions(("deep",), (), place))
    link.spawn(call("deep:here"), [ref(1)])
    link.until(lambda: ref(1) in link.recalled)

    assert link.recalled[ref(1)].cause == Cause.WORKER_TROUBLE
