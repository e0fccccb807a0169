"""Hostile text made harmless before it reaches a terminal.

What came from a task or from another user (names, output, errors) may hold escape sequences that move the cursor, set
the title, write the clipboard or hide text. `line()` is for single values in tables and messages, `Scrubber` for
streams of output. Never parse such text as markup.
"""

import codecs
from typing import Final

# C0 and C1 controls, DEL; what reverses or hides text (bidi, zero width, line separators, tags); lone surrogates.
_HIDDEN: Final = (
    *range(0x20),
    *range(0x7F, 0xA0),
    0x061C,
    *range(0x200B, 0x2010),
    *range(0x2028, 0x202F),
    *range(0x2060, 0x2070),
    0xFEFF,
    *range(0xFFF9, 0xFFFC),
    *range(0xE0000, 0xE0080),
)


def _shown(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


_LINE: Final = {code: _shown(code) for code in _HIDDEN} | {0x0A: "\\n", 0x09: "\\t", 0x0D: "\\r"}
# In a stream, lines and tabs stay; a carriage return stays only as part of a line's end (see Scrubber).
_STREAM: Final = {code: text for code, text in _LINE.items() if code not in (0x09, 0x0A)}
# In JSON, C0 is escaped already; the rest in JSON's own way, so that it stays the same JSON.
_JSON: Final = {code: f"\\u{code:04x}" for code in _HIDDEN if 0x7F <= code < 0x10000}
_SURROGATES: Final = range(0xD800, 0xE000)


def line(text: str) -> str:
    """Return `text` as one line that a terminal shows as it is."""
    return _without_surrogates(text.translate(_LINE))


def block(text: str) -> str:
    """Return `text` with its line ends and tabs, everything else harmless."""
    return _without_surrogates(text.replace("\r\n", "\n").translate(_STREAM))


def json(text: str) -> str:
    """Return JSON that means the same and is safe to print."""
    return "".join(rf"\udb40\u{ord(letter) - 0xE0000 + 0xDC00:04x}" if 0xE0000 <= ord(letter) < 0xE0080 else letter
                   for letter in text.translate(_JSON)) if not text.isascii() else text.translate(_JSON)  # fmt: skip


def _without_surrogates(text: str) -> str:
    if text.isascii() or not any(0xD800 <= ord(letter) < 0xE000 for letter in text):
        return text
    return "".join(_shown(ord(letter)) if ord(letter) in _SURROGATES else letter for letter in text)


class Scrubber:
    """Turns one stream of bytes, in pieces, into text that is safe to print. Bytes that are no UTF-8 become `\\xNN`."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._held = ""  # a carriage return whose line feed may come with the next piece

    def feed(self, data: bytes, *, final: bool = False) -> str:
        """Return what may be printed of `data` and of what was kept back before."""
        text = self._held + self._decoder.decode(data, final)
        self._held = ""
        if text.endswith("\r") and not final:
            text, self._held = text[:-1], "\r"
        return block(text)
