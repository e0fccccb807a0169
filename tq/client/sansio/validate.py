"""What the values that a program gives must look like, by their annotations: what does not fit is never sent. Pure.

A server that cannot read a message ends the connection, which looks like one that broke.
"""

import os
from collections.abc import Callable, Collection, Mapping
from math import inf, isnan
from signal import Signals
from typing import Any, Final, Literal, get_args

from tq.errors import BadRequest
from tq.limits import exit_code_max

Cut = Literal["run", "stop"]
Texts = Collection[str]
PathLike = str | os.PathLike[str]
Codes = Collection[int]
Signal = int | Signals

_NUMBER_MAX: Final = 1e15  # in thousandths it is still an int of 64 bits
_INT_MAX: Final = 2**63 - 1
_S_MAX: Final = 100 * 365 * 86_400.0


def is_text(value: object) -> bool:
    """Whether it is text that can be sent."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _INT_MAX


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _NUMBER_MAX


def _is_code(value: object) -> bool:
    return isinstance(value, Signals) or (_is_int(value) and value in range(exit_code_max + 1))


def _are(value: object, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, list | tuple | set | frozenset) and all(map(fits, value))


_SHAPES: Final[Mapping[Any, tuple[Callable[[Any], bool], str]]] = {
    str: (is_text, "text"),
    int: (_is_int, "an int of 64 bits"),
    float: (_is_number, "a number"),
    Signal: (_is_int, "a signal, as signal.SIGINT"),
    bool: (lambda value: isinstance(value, bool), "True or False"),
    bytes: (lambda value: isinstance(value, bytes), 'bytes, as in "text".encode()'),
    Texts: (lambda value: _are(value, is_text), "a list of texts"),
    Codes: (lambda value: _are(value, _is_code), "a list of exit codes, and of signals as signal.SIGKILL"),
    tuple[float, float]: (
        lambda value: isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_number, value)),
        "two numbers, the first and the longest wait",
    ),
    Cut: (lambda value: isinstance(value, str) and value in get_args(Cut), " or ".join(map(repr, get_args(Cut)))),
    PathLike: (lambda value: isinstance(value, str | os.PathLike), "the name of a file, as text"),
    Mapping[str, str]: (
        lambda value: isinstance(value, Mapping) and all(is_text(name) for name in value),
        'a map of texts by name, as in {"LANG": "C"}',
    ),
}  # fmt: skip


def check(values: Mapping[str, Any], annotations: Mapping[str, Any]) -> None:
    """Raise BadRequest for a value that is not as its annotation says; None says nothing, and fits nowhere."""
    for name, value in values.items():
        fits, shape = _SHAPES[annotations[name]]
        if not fits(value):
            raise BadRequest(f"{name} cannot be {shown(value)}", hint=f"it is {shape}; leave it out for the usual")


def shown(value: object) -> str:
    """Return a value for a sentence about it, however it looks."""
    try:
        return repr(value)[:100]
    except Exception:  # noqa: BLE001 - theirs
        return f"a {type(value).__name__}"


def ms(time_s: float, what: str) -> int:
    """Return seconds as ms. Raises BadRequest for a time that nobody lives to see."""
    if not 0 <= time_s <= _S_MAX:
        raise BadRequest(f"{what} of {time_s} s is out of range", hint="seconds, from 0 to a hundred years")
    return round(time_s * 1_000)


def seconds(timeout_s: Any) -> float:
    """Return how long may be waited, None for without end. Raises BadRequest for what is not a time."""
    if timeout_s is None:
        return inf
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or isnan(timeout_s):
        raise BadRequest(f"timeout_s cannot be {shown(timeout_s)}", hint="seconds; None for no end")
    return max(timeout_s, 0)
