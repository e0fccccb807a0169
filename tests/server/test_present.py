"""What readers see of the opaque parts of a task."""

import pytest

from tq import limits
from tq.core.change.measured import cpu_us_max
from tq.core.vocabulary import Document, Page
from tq.server.sessions.present import (
    list_command_bytes_max,
    present,
    present_page,
    present_tasks,
    usage,
    used_max,
    written,
)
from tq.wire import plain
from tq.wire.body import Body, Usage
from tq.wire.codec import decode, dumps, encode
from tq.wire.messages import Reply

BODY = dumps(
    Body((b"echo", b"a b", b"\xff"), b"/tmp", {"PASSWORD": b"hunter2"}, stdin=b"secret input", time_limit_ms=1_500)
)
USAGE = dumps(Usage(user_us=1_500_000, peak_kib=10, written=(5, 6), dropped=(0, 1), error="why"))


def test_the_body_is_opened_for_who_may_submit() -> None:
    shown = present(Document({"id": "1", "body": BODY}), with_secrets=True).value

    assert shown["command"] == ["echo", "a b", "\\xff"]
    assert shown["cwd"] == "/tmp"
    assert shown["environment"] == {"PASSWORD": "hunter2"}
    assert shown["time_limit_s"] == 1.5
    assert "body" not in shown


def test_a_reader_sees_neither_environment_nor_input() -> None:
    shown = present(Document({"id": "1", "body": BODY, "usage": USAGE}), with_secrets=False)

    assert "environment" not in shown.value
    assert "hunter2" not in repr(shown)
    assert "secret input" not in repr(shown)
    assert shown.value["command"] == ["echo", "a b", "\\xff"]


def test_usage_is_in_seconds_and_bytes() -> None:
    shown = present(Document({"usage": USAGE}), with_secrets=True).value["usage"]

    assert shown["user_s"] == 1.5
    assert shown["peak_bytes"] == 10_240
    assert (shown["stdout_bytes"], shown["stderr_dropped_bytes"]) == (5, 1)
    assert shown["error"] == "why"
    assert written(USAGE) == (5, 6)


def test_what_a_worker_made_up_is_no_trouble() -> None:
    assert usage(b"\xff\xff") is None
    assert written(b"nonsense") is None
    assert present(Document({"body": b"\x01", "usage": b""}), with_secrets=True).value == {"command": None}


@pytest.mark.parametrize(
    "lie",
    [
        Usage(peak_kib=2**62),
        Usage(user_us=-1),
        Usage(system_us=2**53),
        Usage(written=(-(2**63), 1)),
        Usage(dropped=(0, 2**63 - 1)),
    ],
)
def test_what_a_worker_says_that_cannot_be_is_not_shown_to_those_who_ask(lie: Usage) -> None:
    raw = dumps(lie)
    line = present_page(Page(({"id": "1", "usage": raw},), ""))

    assert (usage(raw), written(raw)) == (None, None)
    assert decode(encode([Reply(1, line)]))  # a number of more than 64 bits would end every reader's connection


def test_the_largest_that_may_be_is_shown() -> None:
    shown = present(Document({"usage": dumps(Usage(peak_kib=used_max, user_us=used_max))}), with_secrets=False)

    assert decode(encode([Reply(1, shown)])) == [Reply(1, shown)]


def test_a_list_shows_only_the_beginning_of_a_long_command() -> None:
    long = dumps(Body((b"x" * 150, b"y" * 150, b"z"), b"/", {"PASSWORD": b"hunter2"}))
    (line,) = present_page(Page(({"id": "1", "body": long},), "next")).items

    assert line["command"] == ["x" * 150, "y" * (list_command_bytes_max - 151) + "…"]
    assert "hunter2" not in repr(line)


def test_a_call_is_shown_as_it_would_be_written() -> None:
    arguments = plain.dumps([[1, "x"], {"n": [None, b"y"]}], 1_000, "")
    body = dumps(Body((), b"", function="m:f", arguments=arguments))
    shown = present(Document({"body": body}), with_secrets=False).value
    (line,) = present_page(Page(({"id": "1", "body": body},), "")).items

    assert (shown["function"], shown["arguments"]) == ("m:f", "1, 'x', n=[None, b'y']")
    assert (line["function"], line["command"]) == ("m:f", [])


def test_an_entry_is_shown_in_its_columns_and_a_plain_value_as_json() -> None:
    shown = present(Document({"body": BODY, "entry": b"a b\0\xff\0"}), with_secrets=False).value
    assert shown["entry"] == ["a b", "\\xff", ""]

    body = dumps(Body((), b"", function="m:f", has_plain_entries=True))
    for value, expected in (("it's", "it's"), ({"n": [None, "ü"]}, '{"n": [null, "ü"]}'), ([b"\xff"], '["\\\\xff"]')):
        document = Document({"body": body, "entry": plain.dumps(value, 100, "")})
        assert present(document, with_secrets=False).value["entry"] == [expected]
    assert present(Document({"body": body, "entry": b"\xff"}), with_secrets=False).value["entry"] == []
    assert "entry" not in present(Document({"body": body}), with_secrets=False).value


def test_more_cpu_time_than_is_possible_is_clipped_and_said_to_be() -> None:
    most_us = cpu_us_max(1_000)
    for user_us, system_us, clipped in (
        (most_us, 0, (most_us, 0)),
        (most_us, 1, (most_us, 0)),
        (most_us + 1, 5, (most_us, 0)),
        (10, most_us, (10, most_us - 10)),
    ):
        is_clipped = user_us + system_us > most_us
        used = dumps(Usage(user_us, system_us))
        (task,) = present_tasks(Page(({"id": "1", "usage": used, "run_us": 1_000},), "")).items
        shown = present(Document({"usage": used, "run_us": 1_000}), with_secrets=False).value["usage"]
        assert shown == task["usage"]
        assert (shown["user_s"], shown["system_s"]) == (clipped[0] / 1e6, clipped[1] / 1e6)
        assert shown.get("cpu_clipped", False) is is_clipped


def test_lists_show_the_beginning_of_each_entry_and_dead_letters_how_it_is_put_in() -> None:
    body = dumps(Body((b"/bin/sh", b"-c", b"echo {}"), b"/", columns=2, is_shell=True))
    item = {"id": "1.2", "body": body, "entry": b"a\0" + b"\xff" * 60_000}
    (letter,), (task,) = present_page(Page((item,), "")).items, present_tasks(Page((item,), "")).items
    room = list_command_bytes_max - len("a") - 1

    assert letter["entry"] == task["entry"] == ["a", ("\\xff" * room)[:room] + "…"]
    assert (letter["command"], letter["is_shell"]) == (["/bin/sh", "-c", "echo {}"], True)
    assert set(task) == {"id", "entry"}

    called = dumps(Body((), b"", function="m:f", has_plain_entries=True))
    (task,) = present_tasks(Page(({"id": "1.2", "body": called, "entry": plain.dumps([1], 9, "")},), "")).items
    assert task["entry"] == ["[1]"]


def test_a_peak_that_is_not_known_is_null() -> None:
    shown = usage(dumps(Usage(user_us=1)))

    assert shown is not None
    assert shown["peak_bytes"] is None


def test_the_document_of_the_core_is_not_changed() -> None:
    document = Document({"body": BODY})
    present(document, with_secrets=True)

    assert document.value == {"body": BODY}


def test_a_body_as_large_as_may_be_still_fits_a_frame_as_text() -> None:
    argv = (b"\xff" * 60_000,) * 2
    body = dumps(Body(argv, b"\xff" * 4_096, {f"V{n}": b"\xff" * 1_000 for n in range(60)}))
    shown = present(Document({"body": body, "entry": b"\xff" * 60_000}), with_secrets=True)

    assert shown.value["command"][-1].endswith("…")
    assert len(encode([Reply(1, shown)])) < limits.frame_bytes_max
