"""What tasks and other users wrote reaches a terminal as text, never as commands to it."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tq.cli.showing import escape


def is_harmless(text: str, kept: str = "") -> bool:
    return all(
        letter in kept or unicodedata.category(letter) not in {"Cc", "Cs", "Zl", "Zp"} for letter in text
    ) and not (set(text) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c\u200b\ufeff"))


@pytest.mark.parametrize(
    "hostile, shown",
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\rb", "a\\rb"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\x7f", "\\x7f"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("é 漢 🙂", "é 漢 🙂"),
    ],
)
def test_a_line_shows_what_would_act(hostile: str, shown: str) -> None:
    assert escape.line(hostile) == shown


@given(st.text())
def test_no_line_acts_on_a_terminal(text: str) -> None:
    assert is_harmless(escape.line(text))


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_no_stream_acts_on_a_terminal_however_it_is_cut(pieces: list[bytes]) -> None:
    scrubber = escape.Scrubber()
    shown = "".join(scrubber.feed(piece) for piece in pieces) + scrubber.feed(b"", final=True)
    assert is_harmless(shown, kept="\n\t")
    whole = escape.Scrubber().feed(b"".join(pieces), final=True)
    assert shown == whole


def test_a_stream_keeps_lines_and_text() -> None:
    scrubber = escape.Scrubber()
    text = "zwölf\tlines\r\nand 漢\n"
    shown = "".join(scrubber.feed(bytes([byte])) for byte in text.encode())
    assert shown + scrubber.feed(b"", final=True) == "zwölf\tlines\nand 漢\n"


def test_bytes_that_are_no_utf8_are_shown_as_such() -> None:
    assert escape.Scrubber().feed(b"\xff\xfe ok\xc3", final=True) == "\\xff\\xfe ok\\xc3"


@given(st.text())
def test_json_stays_the_same_and_acts_on_nothing(text: str) -> None:
    plain = json.dumps({"x": text}, ensure_ascii=False)
    shown = escape.json(plain)
    assert json.loads(shown) == {"x": text}
    assert is_harmless(shown) or any(0xD800 <= ord(letter) < 0xE000 for letter in text)


def test_json_hides_tags_as_surrogate_pairs() -> None:
    assert escape.json('"\U000e0041\u202e\x7f"') == '"\\udb40\\udc41\\u202e\\u007f"'
