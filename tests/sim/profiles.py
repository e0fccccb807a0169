"""What simulated tasks are like: each profile is a real body, so that every check of one on its way is passed.

`SHORT` tasks take milliseconds, `MIXED` ones now and then much longer, `LONG` ones seconds; `BAD` ones fail often, a
`POISON` one kills its worker and everything that runs there, a `BOUND` one was submitted with `--if-cut stop`.
"""

from typing import Final

from tq.wire.body import Body
from tq.wire.codec import dumps


def _body(name: str, **fields: bool) -> bytes:
    return dumps(Body((name.encode(),), b"/", **fields))


SHORT: Final = _body("short")
MIXED: Final = _body("mixed")
LONG: Final = _body("long")
BAD: Final = _body("bad")
POISON: Final = _body("poison")
BOUND: Final = _body("bound", stops_when_cut=True)
PROFILES: Final = (SHORT, SHORT, MIXED, LONG, BAD, BOUND)
