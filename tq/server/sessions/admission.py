"""What a peer's word must fulfil before it goes to the engine: bounds of what the core does not look into.

The core checks what it understands (names, sizes, priorities). A body is opaque to it, so that is checked here, once,
at the door: raises BadRequest or TooLarge, and names the bound. Of a worker's words only the numbers are checked: one
that no table could hold, or an offer without measure, is not a word of the protocol. And what the connections of one
token may leave standing, and those of all (`Quota`). Pure, in memory.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

from tq import limits
from tq.core.vocabulary import AttemptRef, Capacity, End, Submit, Wait
from tq.errors import BadRequest, NotDone, ProtocolError, TooLarge
from tq.wire import plain
from tq.wire.body import Body, check_function
from tq.wire.codec import loads


class Quota:
    """So many of `what` for each token, and for all. Connections are many: a bound of each alone bounds nothing."""

    def __init__(self, what: str, of_token_max: int, all_max: int, hint: str) -> None:
        self._what = what
        self._of_token_max = of_token_max
        self._all_max = all_max
        self._hint = hint
        self._taken: Counter[str] = Counter()  # by token
        self._all = 0

    def __len__(self) -> int:
        return self._all

    def take(self, token: str, count: int = 1) -> None:
        """Count what a token leaves standing. Raises NotDone, and counts nothing, where that would be too much."""
        if self._taken[token] + count > self._of_token_max:
            raise NotDone(f"one token may have {self._of_token_max} {self._what} at a time", hint=self._hint)
        if self._all + count > self._all_max:
            raise NotDone(f"all clients may have {self._all_max} {self._what} at a time", hint=self._hint)
        self._taken[token] += count
        self._all += count

    def give(self, token: str, count: int = 1) -> None:
        """Count what no longer stands."""
        self._all -= count
        self._taken[token] -= count
        if not self._taken[token]:
            del self._taken[token]


_KEPT: Final = 256  # bodies
_KEPT_BYTES: Final = 4 * limits.KIB
_JOB_MAX: Final = 2**63 - 1
_POSITION_MAX: Final = 2**32 - 1  # of a part, and of a member


def check(command: object) -> None:
    """Raise BadRequest or TooLarge if the opaque parts of a client's command are not in order."""
    match command:
        case Submit():
            check_submit(command)
        case Wait():  # it is subscribed to its jobs before the core sees it
            _bound(len(command.ids), limits.wait_ids_max, "wait_ids_max", "ids to wait for")


def check_submit(submit: Submit) -> None:
    """Raise unless the body is a `Body` that some worker can run."""
    _bound(len(submit.body), limits.body_bytes_max, "body_bytes_max", "command and environment")
    module = _check_small_body(submit.body) if len(submit.body) <= _KEPT_BYTES else _check_body(submit.body)
    if module != submit.demand.module:  # else workers would get what they do not allow
        raise BadRequest(
            f"it calls a function of {module or 'no module'}, and demands {submit.demand.module or 'none'}"
        )


def _check_body(data: bytes) -> str:
    """Return the module whose function is called, "" for a command."""
    try:
        body = loads(data, Body)
    except ProtocolError as error:
        raise BadRequest(f"the body of the submit is malformed: {error}") from None
    if body.function:
        return _check_call(body)
    if not body.argv or not body.argv[0]:
        raise BadRequest("the command is empty", hint="tq submit -- COMMAND ARGUMENT…")
    _bound(len(body.argv), limits.argv_items_max, "argv_items_max", "arguments")
    _bound(len(body.environment), limits.environment_items_max, "environment_items_max", "variables")
    _bound(len(body.stdin), limits.stdin_inline_bytes_max, "stdin_inline_bytes_max", "inline input")
    for argument in body.argv:
        _bound(len(argument), limits.argument_bytes_max, "argument_bytes_max", "an argument")
    if any(b"\0" in argument for argument in body.argv) or b"\0" in body.cwd:
        raise BadRequest("a command cannot have NUL bytes")
    if not body.cwd.startswith(b"/"):
        raise BadRequest("the working directory must be an absolute path")
    for name, value in body.environment.items():
        if not name or "=" in name or "\0" in name or b"\0" in value:
            raise BadRequest("an environment variable is malformed")
        _bound(len(name) + len(value) + 2, limits.argument_bytes_max, "argument_bytes_max", "a variable")
    return ""


def _check_call(body: Body) -> str:
    """Return the module. Raise unless the body calls a function, and says nothing that only a command could have."""
    module = check_function(body.function)
    if body.argv or body.cwd or body.environment or body.stdin:
        raise BadRequest("a function has no command, directory, environment or input of its own")
    try:
        positional, named = plain.loads(body.arguments)
    except (ProtocolError, TypeError, ValueError):
        raise BadRequest("the arguments of the function are no plain data") from None
    if not (isinstance(positional, list) and isinstance(named, dict)):
        raise BadRequest("the arguments of a function are a list and a map by name")
    return module


# A loop in a script submits the same body again and again: what was found in order is not looked at again.
_check_small_body: Final = lru_cache(_KEPT)(_check_body)


def check_attempts(refs: Iterable[AttemptRef]) -> None:
    """Raise ProtocolError if an attempt's name is none that a server could have given."""
    for ref in refs:
        if not (0 < ref.job <= _JOB_MAX and 0 <= ref.part <= _POSITION_MAX and 0 <= ref.member <= _POSITION_MAX):
            raise ProtocolError("the name of an attempt is out of range")


def check_piece(piece: int) -> None:
    """Raise ProtocolError for a piece that no input has, and no key could name."""
    if not 0 <= piece <= _POSITION_MAX:
        raise ProtocolError("the number of a piece is out of range")


def check_ends(ends: Iterable[End]) -> None:
    """Raise ProtocolError if a report names no attempt, or its result could not be shown beside others."""
    for end in ends:
        check_attempts((end.attempt,))
        if len(end.result) > limits.result_inline_bytes_max:
            raise ProtocolError(f"a result of {len(end.result)} bytes exceeds result_inline_bytes_max")
        if len(end.value) > limits.result_bytes_max:
            raise ProtocolError(f"a returned value of {len(end.value)} bytes exceeds result_bytes_max")


def check_capacity(offer: Capacity) -> None:
    """Raise ProtocolError if a worker offers more than one may have: what is leased to it stands in memory.

    Nor may it say so much that nobody could list it beside the others: a page has room for whatever passes here.
    """
    if not 0 <= offer.slots <= limits.slots_max:
        raise ProtocolError(f"{offer.slots} slots are out of range (slots_max, {limits.slots_max})")
    if len(offer.modules) > limits.modules_max:
        raise ProtocolError(f"{len(offer.modules)} modules exceed modules_max ({limits.modules_max})")
    words = len(offer.queues) + len(offer.labels)
    if words > limits.offer_words_max:
        raise ProtocolError(f"{words} queues and labels exceed offer_words_max ({limits.offer_words_max})")
    for what, texts in _texts(offer):
        size = max((len(text.encode()) for text in texts), default=0)
        if size > limits.offer_word_bytes_max:
            raise ProtocolError(f"a worker's {what} of {size} bytes exceeds offer_word_bytes_max")
    if min(offer.cpus_milli, offer.mem_bytes) < 0:
        raise ProtocolError("a worker cannot offer less than nothing")


def _texts(offer: Capacity) -> tuple[tuple[str, Sequence[str]], ...]:
    """Return the texts of an offer, each with its name."""
    return (
        ("host", (offer.host,)),
        ("software", (offer.software,)),
        ("level", (offer.level,)),
        ("queue", offer.queues),
        ("label", offer.labels),
        ("module", offer.modules),
    )


def _bound(value: int, bound: int, name: str, what: str) -> None:
    if value > bound:
        raise TooLarge(f"{what}: {value} exceeds {name} ({bound})")
