"""Entries: what a member's own input does to its arguments and environment."""

import os
import subprocess

import pytest

from tests.support.launcher import Link, ref
from tq.core.vocabulary import Assignment
from tq.launcher import protocol
from tq.launcher.program import Program
from tq.launcher.stored_stdin import StoredInputs
from tq.wire import codec
from tq.wire.body import Body


def _arguments(*argv, entry, value=7, columns=1):
    return Program(Body(tuple(argv), b"/", columns=columns), {}).arguments(value, entry)


@pytest.mark.parametrize(
    "given, entry, expected",
    [
        (b"{}", b"a b", b"a b"),
        (b"x-{}.{}", b"$(rm)", b"x-$(rm).$(rm)"),
        (b"{1}:{2}", b"a\0b", b"a:b"),
        (b"{}", b"a\0b", b"a b"),
        (b"{#}", b"a", b"7"),
        (b"{3}", b"a\0b", b"{3}"),
        (b"{}", b"{1}", b"{1}"),
        (b"{}", b"", b""),
        (b"{}", b"\xff", b"\xff"),
        (b"plain {x} {{}", b"a", b"plain {x} {a"),
    ],
)
def test_a_placeholder_becomes_its_column_verbatim(given, entry, expected):
    assert _arguments(given, entry=entry, columns=entry.count(b"\0") + 1) == [expected]


@pytest.mark.parametrize("entry", [b"a b", b"", b"$(rm) `id`; x", b"it's '' \\' \n", b"\xff*?~"])
def test_in_a_shell_line_an_entry_is_one_word_and_no_code(entry):
    body = Body((b"/bin/sh", b"-c", b"printf '[%s]' {} x{1}y"), b"/", columns=1, is_shell=True)
    argv = Program(body, {}).arguments(1, entry)
    assert subprocess.run(argv, capture_output=True, check=True).stdout == b"[%b][x%by]" % (entry, entry)


def test_in_a_shell_line_each_column_is_a_word():
    body = Body((b"/bin/sh", b"-c", b"printf '[%s]' {}"), b"/", columns=2, is_shell=True)
    argv = Program(body, {}).arguments(1, b"a b\0c")
    assert subprocess.run(argv, capture_output=True, check=True).stdout == b"[a b][c]"


def test_without_entries_braces_are_only_braces():
    assert _arguments(b"find", b"{}", entry=None, columns=0) == [b"find", b"{}"]


def test_an_entry_reaches_arguments_and_environment_of_its_own_member_only():
    data = codec.dumps(Body((b"sh", b"-c", b'echo "$0|$TQ_ENTRY"', b"{}"), b"/", columns=1))
    with Link() as link:
        first, second = ref(1, 0), ref(1, 1)
        attempts = (Assignment(first, 1, b"one; exit 3"), Assignment(second, 2, b"two"))
        link.say(protocol.Spawn(1, 2, True, "q", "", data, 0, link.worker, attempts))
        link.until(lambda: {first, second} <= link.ends.keys())
        assert link.text(first) == b"one; exit 3|one; exit 3\n"
        assert link.text(second) == b"two|two\n"


def test_a_program_may_be_the_entry():
    data = codec.dumps(Body((b"{}",), b"/", columns=1))
    with Link() as link:
        refs = [ref(1, 0), ref(1, 1), ref(1, 2)]
        entries = (b"true", b"false", b"no-such-program")
        attempts = tuple(Assignment(one, 1, entry) for one, entry in zip(refs, entries, strict=True))
        link.say(protocol.Spawn(1, 1, True, "q", "", data, 0, link.worker, attempts))
        link.until(lambda: set(refs) <= link.ends.keys())
        assert [link.ends[one].code for one in refs] == [0, 1, 127]


PIECE = protocol.input_piece_bytes
DATA = os.urandom(2 * PIECE + 5)


def test_an_input_is_its_pieces_in_order_and_a_repeat_changes_nothing():
    inputs = StoredInputs()
    for piece in [*protocol.input_frames(7, DATA), *protocol.input_frames(7, DATA)]:
        inputs.store(piece)

    with os.fdopen(inputs.get(7).open(), "rb") as file:
        assert file.read() == DATA


@pytest.mark.parametrize("failing", ["memfd_create", "write"])
def test_of_an_input_of_which_a_piece_could_not_be_kept_nothing_is_there(monkeypatch, failing):
    """What is there of it would be another input: its attempts go back when they come."""
    inputs = StoredInputs()
    first, *rest = protocol.input_frames(7, DATA)
    with monkeypatch.context() as trouble:
        trouble.setattr(os, failing, _fail)
        inputs.store(first)
    for piece in rest:
        inputs.store(piece)

    with pytest.raises(FileNotFoundError):
        inputs.get(7)


def _fail(*_: object) -> int:
    raise OSError(24, "too many open files")


def test_an_input_that_comes_anew_after_trouble_is_there(monkeypatch):
    inputs = StoredInputs()
    with monkeypatch.context() as trouble:
        trouble.setattr(os, "write", _fail)
        inputs.store(next(protocol.input_frames(7, DATA)))
    for piece in protocol.input_frames(7, DATA):
        inputs.store(piece)

    assert inputs.get(7).size == len(DATA)
