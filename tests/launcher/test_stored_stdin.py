"""Large inputs at the launcher: whole, or not at all."""

import os

import pytest

from tq.launcher import protocol
from tq.launcher.stored_stdin import StoredInputs

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
