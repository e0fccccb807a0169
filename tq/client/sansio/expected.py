"""What the answer to a command must be: a server that says something else is not taken at its word."""

from typing import TypeVar

from tq.errors import ProtocolError

_T = TypeVar("_T")


def expect(kind: type[_T], answer: object) -> _T:
    """Return an answer of this kind. Raises ProtocolError for another one."""
    if not isinstance(answer, kind):
        raise ProtocolError(f"the server answered with {type(answer).__name__}, not {kind.__name__}")
    return answer
