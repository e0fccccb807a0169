"""A file of the worker's host that takes one stream of a task, instead of the server: `--stdout FILE`, `--stderr FILE`.

In the path these signs stand for whose output it is; any other sign behind % is refused at submit:

    %t   the task, 42 or 43.7         %j   its job, 43         %a   its number in an array, 7
    %n   the attempt, from 1          %%   a percent sign

Pure text: who opens it is launcher/spawn.py.
"""

import re
from collections.abc import Mapping
from typing import Final

from tq.errors import BadRequest
from tq.limits import path_bytes_max

_SIGN: Final = re.compile(rb"%(.?)", re.DOTALL)
_KNOWN: Final = frozenset({b"t", b"j", b"a", b"n", b"%"})
_HINT: Final = "%t is the task, %j its job, %a its number in an array, %n the attempt; %% is a %"
_OF_A_MEMBER: Final = frozenset({b"t", b"a"})


def check(path: bytes, what: str, *, is_array: bool) -> None:
    """Raise BadRequest for a path that is none, or that all tasks of an array would share. `what` is its option."""
    if not path or b"\0" in path:
        raise BadRequest(f"{what}: no file has such a name")
    if len(path) > path_bytes_max:
        raise BadRequest(f"{what} has {len(path)} bytes; path_bytes_max is {path_bytes_max}")
    signs = set(_SIGN.findall(path))
    for sign in sorted(signs - _KNOWN):
        text = sign.decode(errors="backslashreplace")
        raise BadRequest(f"{what}: %{text} stands for nothing", hint=_HINT)
    if is_array and not signs & _OF_A_MEMBER:
        raise BadRequest(
            f"{what}: all tasks of the array would write to one file", hint="write %t (43.7) or %a (7) into its name"
        )
    if not is_array and b"a" in signs:
        raise BadRequest(f"{what}: %a is the number of a task in an array", hint="%t is the task, %j its job")


def expand(path: bytes, names: Mapping[bytes, bytes]) -> bytes:
    """Return the path with `names` in place of its signs: of t, j, a and n."""
    known = {**names, b"%": b"%"}
    return _SIGN.sub(lambda match: known.get(match[1], match[0]), path)
