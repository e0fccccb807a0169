"""Write the generated parts of docs/protocol.md: bounds, messages, words, numbers, examples. `--check` only compares.

python tools/gen_protocol.py [--check]

The prose of the page is written by hand. What stands between `<!-- begin NAME -->` and `<!-- end NAME -->` comes from
tq/limits.py, tq/wire/messages.py, tq/wire/body.py, tq/core/vocabulary/, tq/core/model/task.py, and the examples below.
A test (tests/wire/test_protocol_page.py) plays the examples byte for byte.
"""

import inspect
import json
import re
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import NODEFAULT
from msgspec import inspect as types
from page import fill, write

from tq import limits
from tq.core import vocabulary as v
from tq.core.model.job import Demand
from tq.core.model.task import Cause, Phase
from tq.net.token import RANDOM_BYTES, make_token
from tq.wire import codec
from tq.wire import messages as m
from tq.wire.body import Body, Usage
from tq.wire.connection import Connection
from tq.wire.held import tally

PAGE: Final = Path(__file__).parents[1] / "docs/protocol.md"

# Who sends what. A message that is missing here stops the generator.
CLIENT, WORKER, SERVER, BOTH = "client", "worker", "server", "both"
SENDERS: Final[dict[type[Any], str]] = {
    m.GetCA: "client, worker",
    m.CA: SERVER,
    m.Hello: "client, worker",
    m.Welcome: SERVER,
    m.Refused: SERVER,
    m.Beat: BOTH,
    m.Goodbye: BOTH,
    m.Ask: CLIENT,
    m.Reply: SERVER,
    m.Failed: SERVER,
    m.Unsubscribe: CLIENT,
    m.Reconcile: WORKER,
    m.Reconciled: SERVER,
    m.ReconcileAgain: SERVER,
    m.Assign: SERVER,
    m.Assigned: WORKER,
    m.StopAttempts: SERVER,
    m.RecallAttempts: SERVER,
    m.StartedAttempts: WORKER,
    m.Ended: WORKER,
    m.HandedBack: WORKER,
    m.Acknowledged: SERVER,
    m.Output: WORKER,
    m.FollowOutput: SERVER,
    m.DrainWorker: SERVER,
    m.Draining: WORKER,
    m.GetBlob: WORKER,
    m.Blob: SERVER,
}

BOUNDS: Final = (
    ("frame_hello_bytes_max", "bytes of a frame's body before the peer is authenticated"),
    ("frame_bytes_max", "bytes of a frame's body afterwards"),
    (
        "output_frame_bytes_max",
        "bytes of output that a sender puts into one frame, so that nothing waits long behind it",
    ),
    ("depth_max", "containers inside each other"),
    ("handshake_s", "seconds for the TLS handshake"),
    ("hello_s", "seconds from the handshake to the hello"),
    ("heartbeat_s", "seconds between beats, unless `Welcome` says otherwise"),
    ("missed_beats_max", "silent beats after which a peer is gone"),
    ("delivery_s_max", "seconds for the acknowledgement of a delivery, and for one write to make progress"),
    (
        "answers_bytes_max",
        "bytes of answers that wait for a client to read; the server takes no request while it has more",
    ),
    ("waits_max", "`Wait`s that are open on one connection"),
    ("wait_ids_max", "ids that these name in all"),
    ("wait_ids_of_token_max", "ids that those of one token name, on all its connections"),
    ("wait_ids_all_max", "ids that those of all clients name"),
    ("streams_max", "`Logs` and `Backup`s that are being answered on one connection"),
    ("streams_of_token_max", "the same on all connections of one token"),
    ("streams_all_max", "the same of all clients"),
    ("page_items_max", "items of a page, whatever `limit` asks for"),
    ("name_chars_max", "characters of a name"),
    ("key_chars_max", "characters of a key"),
    ("tags_max", "tags of a job"),
    ("body_bytes_max", "bytes of a task's body"),
    ("stdin_inline_bytes_max", "bytes of input inside a body; more goes by `Upload`"),
    ("stdin_bytes_max", "bytes of input in all"),
    ("piece_bytes_max", "bytes of one piece of an input"),
    ("entries_items_max", "entries in one run"),
    ("entries_bytes_max", "bytes of entries in one run"),
    ("entry_bytes_max", "bytes of one entry"),
    ("array_size_max", "members of an array"),
    ("offer_words_max", "queues and labels that a worker names"),
    ("modules_max", "modules that a worker names"),
    ("offer_word_bytes_max", "bytes of each text of a worker's offer"),
    ("output_slot_bytes", "bytes of one slot of output"),
    ("output_head_slots", "slots at the head of a stream that are kept for good"),
    ("output_ring_slots", "slots after them that are kept, the latest ones"),
)

REF: Final = v.AttemptRef(42, 0, 6, 1, 7_000)
WORKERS_TOKEN: Final = make_token("worker", bytes(range(RANDOM_BYTES))).text
CLIENTS_TOKEN: Final = make_token("submit", bytes(range(RANDOM_BYTES))).text

USAGE: Final = codec.dumps(Usage(800, 400, 9_216, (3, 0)))
ENDED: Final = v.Outcome("42", "succeeded", "ended", cause="exit", succeeded=1, ended=1, attempt=1, usage=USAGE)

# Each story is one connection; `>` goes to the server, `<` comes from it.
STORIES: Final[dict[str, list[tuple[str, m.Message]]]] = {
    "A client submits `echo hi`, waits for it and reads its output": [
        (">", m.Hello((1, 1), "mine 0.1", CLIENTS_TOKEN, "client")),
        ("<", m.Welcome(1, "tq 0.1.0", 81_985_529_216_486_895, 3, 9, 5_000, "submit")),
        (">", m.Ask(1, v.Submit("a-random-key", codec.dumps(Body((b"echo", b"hi"), b"/")), "greeting"))),
        ("<", m.Reply(1, v.Submitted("42"))),
        (">", m.Ask(2, v.Wait(("42",)))),
        ("<", m.Reply(2, v.Waited(False, (v.Outcome("42", "queued"),)), True)),
        ("<", m.Beat()),
        ("<", m.Reply(2, v.Waited(True, (ENDED,)))),
        (">", m.Ask(3, v.Logs("42"))),
        ("<", m.Reply(3, v.Chunk(1, 0, b"hi\n", 1), True)),
        ("<", m.Reply(3, v.LogsEnd(1, (3, 0), "succeeded"))),
        (">", m.Ask(4, v.Get("99"))),
        ("<", m.Failed(4, "not_found", "there is no job 99", "see `tq ls`")),
        (">", m.Goodbye("done")),
    ],
    "A worker joins, runs one member of an array, and reports it": [
        (">", m.Hello((1, 1), "mine 0.1", WORKERS_TOKEN, "worker", 1_311_768_467_463_790_320)),
        ("<", m.Welcome(1, "tq 0.1.0", 81_985_529_216_486_895, 3, 10, 5_000, "worker")),
        (">", m.Reconcile(v.Capacity(2, 2_000, 4 * 2**30, "build-1", 4_711, "mine 0.1"), ())),
        ("<", m.Reconciled((), ())),
        ("<", m.Assign(1, 5, 2, True, "default", "", codec.dumps(Body((b"true",), b"/")), 0, (v.Assignment(REF, 7),))),
        (">", m.Assigned(1)),
        (">", m.Beat(*tally([REF]), 1)),
        ("<", m.Beat(number=1)),
        (">", m.Output(REF, 1, 0, b"hi\n")),
        (">", m.Ended(1, (v.End(REF, Cause.EXIT, 0, 1_250, USAGE),))),
        ("<", m.Acknowledged(1)),
        (">", m.Goodbye("drained")),
    ],
    "Somebody who has only a join string asks for the CA": [
        (">", m.GetCA()),
        ("<", m.CA(b"-----BEGIN CERTIFICATE-----\n...\n-----END CERTIFICATE-----\n")),
    ],
}


def kind_of(kind: types.Type) -> str:
    """Return a field's type as the page writes it."""
    match kind:
        case types.IntType():
            return "int"
        case types.StrType():
            return "text"
        case types.BytesType():
            return "bytes"
        case types.BoolType():
            return "bool"
        case types.AnyType():
            return "any"
        case types.TupleType(item_types=items):
            return f"[{', '.join(map(kind_of, items))}]"
        case types.VarTupleType(item_type=item):
            return f"[{kind_of(item)} …]"
        case types.DictType(key_type=key, value_type=value):
            return f"{{{kind_of(key)}: {kind_of(value)} …}}"
        case types.StructType(cls=cls):
            return cls.__name__
        case types.UnionType(types=(one, types.NoneType())):
            return f"{kind_of(one)} or null"
        case types.UnionType(types=several):
            names = {one.cls for one in several if isinstance(one, types.StructType)}
            return "command" if v.Submit in names else "answer"
        case _:
            raise SystemExit(f"no word for {kind}")


def fields_of(kind: type[Any]) -> str:
    """Return the fields of a struct with their types, defaults where they may be left out."""
    info = types.type_info(kind)
    if not isinstance(info, types.StructType):
        raise SystemExit(f"{kind} is no struct")
    shown = []
    for field in info.fields:
        text = f"`{field.name}`: {kind_of(field.type)}"
        if not field.required:
            default = field.default if field.default is not NODEFAULT else field.default_factory()
            text += f" = {said(msgspec.to_builtins(default, builtin_types=(bytes,)))}"
        shown.append(text)
    return ", ".join(shown) or "none"


def meaning(kind: type[Any]) -> str:
    """Return a struct's docstring as one line of a table."""
    return " ".join((inspect.getdoc(kind) or "").split()).replace("|", "\\|")


def said(value: Any) -> str:
    """Return a value in CBOR's diagnostic notation."""
    match value:
        case bytes():
            return f"h'{value.hex()}'"
        case list() | tuple():
            return f"[{', '.join(map(said, value))}]"
        case dict():
            return "{" + ", ".join(f"{said(key)}: {said(one)}" for key, one in value.items()) + "}"
        case _:
            return json.dumps(value, ensure_ascii=False)


def table(kinds: list[type[Any]], head: str, extra: dict[type[Any], str] | None = None) -> str:
    """Return a table of structs: name, who sends it if that is known, fields, meaning."""
    lines = [f"| {head} |{' from |' if extra else ''} fields | meaning |", f"|---|{'---|' if extra else ''}---|---|"]
    for kind in kinds:
        if extra and kind not in extra:
            raise SystemExit(f"{kind.__name__} has no sender: add it to SENDERS")
        sender = f" {extra[kind]} |" if extra else ""
        lines.append(f"| `{kind.__name__}` |{sender} {fields_of(kind)} | {meaning(kind)} |")
    return "\n".join(lines)


def numbers(kinds: list[type[IntEnum]]) -> str:
    """Return the numbers of an enumeration in one line each."""
    return "\n".join(
        f"- **{kind.__name__}**: " + ", ".join(f"{one.value} {one.name.lower()}" for one in kind) for kind in kinds
    )


def example(title: str, story: list[tuple[str, m.Message]]) -> str:
    """Return one connection as the bytes of its frames, each with what it says."""
    lines = [f"### {title}", "", "```text"]
    for direction, message in story:
        frame = Connection().send([message]).hex()
        pieces = re.findall(".{1,96}", frame)
        lines += [f"{direction} {pieces[0]}", *(f"  {piece}" for piece in pieces[1:])]
        lines.append(f"# [{said(msgspec.to_builtins(message, builtin_types=(bytes,)))}]")
    return "\n".join([*lines, "```"])


def parts() -> dict[str, str]:
    """Return every generated part of the page by its name."""
    return {
        "bounds": "\n".join(
            ["| bound | value | of what |", "|---|---|---|"]
            + [f"| `{name}` | {getattr(limits, name):,} | {what} |".replace(".0 ", " ") for name, what in BOUNDS]
        ),
        "messages": table(list(m.Message.__args__), "message", SENDERS),
        "commands": table(list(v.ClientCommand.__args__), "command"),
        "answers": table([kind for kind in v.Answer.__args__ if kind not in (v.Joined, v.Recovered)], "answer"),
        "records": table(
            [v.AttemptRef, v.Capacity, v.Held, v.Assignment, v.End, v.Outcome, v.Where, Demand, Body, Usage], "record"
        ),
        "numbers": numbers([Cause, Phase]),
        "examples": "\n\n".join(example(title, story) for title, story in STORIES.items()),
    }


def filled(page: str) -> str:
    """Return the page with every generated part in its place."""
    for name, text in parts().items():
        page = fill(page, name, text)
    return page


if __name__ == "__main__":
    write(PAGE, filled(PAGE.read_text()))
