"""Plays the examples of docs/protocol.md byte for byte: the page must be enough to write another end."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import cbor2
import pytest

from tq import limits
from tq.core.vocabulary import AttemptRef
from tq.net.token import parse_token
from tq.wire.body import Body, Usage
from tq.wire.codec import loads
from tq.wire.connection import Connection
from tq.wire.held import tally
from tq.wire.messages import Assign, Beat, Ended, GetCA, Hello, Message, Welcome

PAGE = Path(__file__).parents[2] / "docs/protocol.md"


class Line(NamedTuple):
    """One frame of an example: `>` to the server or `<` from it, its bytes, and what the page says is in it."""

    direction: str
    frame: bytes
    said: str


def stories() -> dict[str, list[Line]]:
    found = {}
    for title, block in re.findall(r"### ([^\n]+)\n\n```text\n(.*?)\n```", PAGE.read_text(), re.DOTALL):
        lines = re.findall(r"([<>]) ([0-9a-f\s]+)\n# (.*)", block)
        found[title] = [Line(way, bytes.fromhex("".join(text.split())), said) for way, text, said in lines]
    return found


STORIES = stories()


def diagnostic(value: Any) -> str:
    """Return CBOR's diagnostic notation."""
    if isinstance(value, bytes):
        return f"h'{value.hex()}'"
    if isinstance(value, list):
        return "[" + ", ".join(diagnostic(one) for one in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{diagnostic(key)}: {diagnostic(one)}" for key, one in value.items()) + "}"
    return json.dumps(value)


def played(story: list[Line], way: str) -> list[Message]:
    end = Connection(limits.frame_bytes_max)
    return [message for line in story if line.direction == way for message in end.receive_data(line.frame)]


def test_the_page_has_examples_of_every_kind_of_connection() -> None:
    first = [played(story, ">")[0] for story in STORIES.values()]

    assert {hello.role for hello in first if isinstance(hello, Hello)} == {"client", "worker"}
    assert GetCA() in first
    assert sum(map(len, STORIES.values())) > 20


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
def test_the_bytes_are_the_messages_that_stand_below_them(story: list[Line]) -> None:
    for line in story:
        length, body = line.frame[:4], line.frame[4:]
        assert int.from_bytes(length, "big") == len(body)
        assert diagnostic(cbor2.loads(body)) == line.said


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
def test_the_bytes_are_what_tq_understands_and_what_it_sends(story: list[Line]) -> None:
    for line in story:
        messages = Connection(limits.frame_bytes_max).receive_data(line.frame)
        assert len(messages) == 1
        assert Connection().send(messages) == line.frame


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
def test_what_comes_before_the_welcome_fits_the_bound_before_it(story: list[Line]) -> None:
    before = [line.frame for line in story if line.direction == ">"][:1]

    assert Connection().receive_data(before[0])


def test_a_worker_by_the_book() -> None:
    story = next(story for title, story in STORIES.items() if title.startswith("A worker"))
    sent, received = played(story, ">"), played(story, "<")

    assert isinstance(sent[0], Hello)
    assert parse_token(sent[0].token).role == "worker"
    assert isinstance(received[0], Welcome)
    (assign,) = [message for message in received if isinstance(message, Assign)]
    (ended,) = [message for message in sent if isinstance(message, Ended)]
    (beat,) = [message for message in sent if isinstance(message, Beat)]
    refs: list[AttemptRef] = [one.attempt for one in assign.attempts]
    assert [one.attempt for one in ended.ends] == refs
    assert (beat.count, beat.digest) == tally(refs) == (1, by_the_formula_of_the_page(refs[0]))
    assert loads(assign.body, Body).argv == (b"true",)
    assert loads(ended.ends[0].result, Usage).written == (3, 0)


def by_the_formula_of_the_page(ref: AttemptRef) -> int:
    text = PAGE.read_text()
    factors = {name: int(factor, 16) for name, factor in re.findall(r"(\w+) \* ([0-9A-F]{16})\b", text)}
    (finish,) = re.findall(r"\(x xor \(x >> 33\)\) \* ([0-9A-F]{16})", text)
    x = sum(getattr(ref, name) * factors[name] for name in ("job", "part", "member", "attempt", "lease")) % 2**64
    x = (x ^ (x >> 33)) * int(finish, 16) % 2**64
    return (x ^ (x >> 33)) % 2**63
