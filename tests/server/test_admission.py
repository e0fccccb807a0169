"""What is refused at the door: bodies and inputs past their bounds, each with a clear error."""

from typing import Any

import pytest

from tests.server.rig import submit
from tq import limits
from tq.core.vocabulary import Capacity, Demand, Wait
from tq.errors import BadRequest, ProtocolError, Refused, TooLarge
from tq.server.sessions.admission import check, check_capacity
from tq.wire import plain
from tq.wire.body import Body
from tq.wire.codec import dumps


def body(argv: tuple[bytes, ...] = (b"true",), cwd: bytes = b"/", **fields: Any) -> Any:
    return submit(body=dumps(Body(argv, cwd, **fields)))


def call(
    name: str = "mod:f",
    arguments: Any = ([], {}),
    argv: tuple[bytes, ...] = (),
    cwd: bytes = b"",
    module: str | None = None,
    **fields: Any,
) -> Any:
    packed = arguments if isinstance(arguments, bytes) else plain.dumps(arguments, 1_000, "")
    data = dumps(Body(argv, cwd, function=name, arguments=packed, **fields))
    return submit(body=data, demand=Demand(module=name.partition(":")[0] if module is None else module))


@pytest.mark.parametrize(
    "command",
    [
        body(),
        body((b"echo", b"", b"\xff\n")),
        body(environment={"A": b"", "B": b"x=y"}),
        body((b"x" * limits.argument_bytes_max,)),
        body(stdin=b"x" * limits.stdin_inline_bytes_max),
        call(),
        call("pkg.mod:Class.method", [["x", 1], {"y": None}]),
        Wait(("1",) * limits.wait_ids_max),
    ],
)
def test_what_is_in_order_passes(command: Any) -> None:
    check(command)


@pytest.mark.parametrize(
    "command,error,text",
    [
        (submit(body=b"\xff"), BadRequest, "malformed"),
        (submit(body=b""), BadRequest, "malformed"),
        (submit(body=b"x" * (limits.body_bytes_max + 1)), TooLarge, "body_bytes_max"),
        (body(()), BadRequest, "empty"),
        (body((b"", b"x")), BadRequest, "empty"),
        (body((b"a\0b",)), BadRequest, "NUL"),
        (body(cwd=b"relative"), BadRequest, "absolute"),
        (body((b"x",) * (limits.argv_items_max + 1)), TooLarge, "argv_items_max"),
        (body((b"x" * (limits.argument_bytes_max + 1),)), TooLarge, "argument_bytes_max"),
        (body(environment={"A=B": b""}), BadRequest, "malformed"),
        (body(environment={"": b""}), BadRequest, "malformed"),
        (body(environment={"A": b"\0"}), BadRequest, "malformed"),
        (body(stdin=b"x" * (limits.stdin_inline_bytes_max + 1)), TooLarge, "stdin_inline_bytes_max"),
        (call(module="another"), BadRequest, "a function of mod, and demands another"),
        (call(module=""), BadRequest, "a function of mod, and demands none"),
        (
            submit(body=dumps(Body((b"true",), b"/")), demand=Demand(module="mod")),
            BadRequest,
            "no module, and demands mod",
        ),
        (call("mod"), BadRequest, "not the name of a function"),
        (call("mod:f()"), BadRequest, "not the name of a function"),
        (call("mod:" + "f" * limits.function_chars_max), BadRequest, "function_chars_max"),
        (call(arguments=[[]]), BadRequest, "no plain data"),
        (call(arguments=[{}, []]), BadRequest, "a list and a map"),
        (call(arguments=b"\xff"), BadRequest, "no plain data"),
        (call(argv=(b"echo",)), BadRequest, "no command"),
        (call(cwd=b"/"), BadRequest, "no command, directory"),
        (call(environment={"A": b"1"}), BadRequest, "no command"),
        (call(stdin=b"x"), BadRequest, "no command"),
        (Wait(("1",) * (limits.wait_ids_max + 1)), TooLarge, "wait_ids_max"),
    ],
)
def test_what_is_not_is_refused_with_the_name_of_the_bound(command: Any, error: type[Refused], text: str) -> None:
    with pytest.raises(error, match=text):
        check(command)


@pytest.mark.parametrize(
    "fields, text",
    [
        ({"host": "h" * 150_000}, "host of 150000 bytes exceeds offer_word_bytes_max"),
        ({"host": "ä" * 128}, "host of 256 bytes exceeds offer_word_bytes_max"),
        ({"software": "s" * 256}, "software of 256"),
        ({"level": "l" * 256}, "level of 256"),
        ({"queues": ("q", "q" * 256)}, "queue of 256"),
        ({"labels": ("k=" + "v" * 254,)}, "label of 256"),
        ({"modules": ("m" * 256,)}, "module of 256"),
        ({"modules": ("m",) * (limits.modules_max + 1)}, "modules_max"),
        ({"queues": ("q",) * 200, "labels": ("l",) * 57}, "257 queues and labels exceed offer_words_max"),
        ({"slots": limits.slots_max + 1}, "slots_max"),
    ],
)
def test_an_offer_beyond_its_bounds_is_refused_with_the_name_of_the_bound(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(ProtocolError, match=text):
        check_capacity(Capacity(**{"slots": 1} | fields))
    word = "w" * limits.offer_word_bytes_max
    check_capacity(Capacity(1, host=word, queues=(word,) * 200, labels=(word,) * 56, modules=(word,)))
