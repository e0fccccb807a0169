"""The files that a task's output may go into: their signs, and what is refused."""

import pytest

from tq.errors import BadRequest
from tq.wire.output_path import check, expand

NAMES = {b"t": b"43.7", b"j": b"43", b"a": b"7", b"n": b"2"}


@pytest.mark.parametrize(
    "path, there",
    [
        (b"out", b"out"),
        (b"/logs/%j/%a.%n", b"/logs/43/7.2"),
        (b"%t%t", b"43.743.7"),
        (b"%%t-%%%t-%%", b"%t-%43.7-%"),
        (b"%", b"%"),
        (b"%\xff%t", b"%\xff43.7"),
        (b"", b""),
    ],
)
def test_signs_stand_for_what_they_say(path, there):
    assert expand(path, NAMES) == there


def test_what_stands_for_a_sign_is_not_read_again():
    assert expand(b"%t", {b"t": b"%n", b"n": b"1"}) == b"%n"


@pytest.mark.parametrize("path, is_array", [(b"out-%t", True), (b"%a", True), (b"x", False), (b"%t.%n%%", False)])
def test_these_are_right(path, is_array):
    check(path, "--stdout", is_array=is_array)


@pytest.mark.parametrize(
    "path, is_array, why",
    [
        (b"", False, "no file"),
        (b"a\0b", False, "no file"),
        (b"x" * 4_097, False, "path_bytes_max"),
        (b"%x", False, "%x stands for nothing"),
        (b"100%", False, "stands for nothing"),
        (b"%\xff", False, "stands for nothing"),
        (b"out", True, "one file"),
        (b"%j-%n-%%t", True, "one file"),
        (b"%a", False, "in an array"),
    ],
)
def test_these_are_refused(path, is_array, why):
    with pytest.raises(BadRequest, match=why):
        check(path, "--stdout", is_array=is_array)


def test_the_hint_names_every_sign():
    with pytest.raises(BadRequest) as refused:
        check(b"%x", "--stdout", is_array=False)
    assert all(sign in refused.value.hint for sign in ("%t", "%j", "%a", "%n", "%%"))
