"""The opaque parts of a task: what only its worker, or only its reader, needs.

The server stores and forwards these CBOR byte strings and never looks inside (measured: twice the throughput).
"""

from functools import lru_cache
from typing import Final

import msgspec

from tq.errors import BadRequest
from tq.limits import function_chars_max
from tq.wire import codec, flat


class Body(msgspec.Struct, frozen=True, array_like=True):
    """What a worker needs to run a task, or to call a function. `environment` are NAME=VALUE pairs of the submitter's.

    `time_limit_ms` 0 = none. `stdin` is the input when it is small; a large one is a blob (`Start.stdin`).
    """

    argv: tuple[bytes, ...]
    cwd: bytes
    environment: dict[str, bytes] = {}
    stdin: bytes = b""
    time_limit_ms: int = 0
    kill_after_ms: int = 10_000
    umask: int = 0o022
    stop_signal: int = 15
    columns: int = 0  # of each member's entry, 0 = no entries; {} {1} {2} {#} in argv then stand for it
    is_shell: bool = False  # a shell reads argv: each column is quoted as one word of it
    stops_when_cut: bool = False  # KILLed when its worker hears nothing of the server, before anybody else gets it
    function: str = ""  # `module:qualname`: this is called, in a warm process, and argv is empty
    arguments: bytes = b""  # plain data (wire/plain.py): [positional, by name]
    has_plain_entries: bool = False  # an entry is plain data, one value; else columns of text
    has_tmpdir: bool = False  # a directory of its own for each attempt, removed after it
    stdout: bytes = b""  # the file that takes it on the worker's host (wire/output_path.py), b"" = the server does
    stderr: bytes = b""


_PLAIN: Final[list[object]] = msgspec.to_builtins(Body((), b""), builtin_types=(bytes,))
_HEAD: Final = codec.array_head(len(_PLAIN))
_LONGEST_HEAD: Final = codec.array_head(2**32)[:1]


def dump(body: Body) -> bytes:
    """Return the CBOR of a body, to its last field that says anything.

    So the same task is the same bytes to a version that knows more fields; and to one that knows fewer, only what it
    would run otherwise than its submitter meant is longer than it knows (`is_beyond`).
    """
    fields = msgspec.to_builtins(body, builtin_types=(bytes,))
    while len(fields) > 2 and fields[-1] == _PLAIN[len(fields) - 1]:
        fields.pop()
    return codec.pack(fields)


def is_beyond(data: bytes) -> bool:
    """Whether the body of a task says something that only a later version knows of."""
    return data[:1] > _HEAD and data[:1] <= _LONGEST_HEAD


def check_function(name: str) -> str:
    """Return the module of `module:qualname`, or raise BadRequest."""
    module, colon, path = name.partition(":")
    parts = [*module.split("."), *path.split(".")]
    if not colon or not all(part.isidentifier() for part in parts):
        raise BadRequest(
            f"{name[:function_chars_max]!r} is not the name of a function",
            hint="write MODULE:FUNCTION, as in images.resize:thumbnail; a lambda or an inner function has no such name",
        )
    if len(name) > function_chars_max:
        raise BadRequest(
            f"the function's name has {len(name)} characters; function_chars_max is {function_chars_max}",
            hint="give it a shorter one in its module",
        )
    return module


class Usage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What an attempt used and wrote. Times in us, memory in KiB, output in bytes (written; dropped in the middle)."""

    user_us: int = 0
    system_us: int = 0
    peak_kib: int = 0
    written: tuple[int, int] = (0, 0)
    dropped: tuple[int, int] = (0, 0)
    core_dumped: bool = False
    output_held: bool = False
    error: str = ""  # for a person: why it could not be started


_USAGE: Final = codec.array_head(len(Usage.__struct_fields__))


def packed(usage: Usage) -> bytes:
    """Return the CBOR of `usage`, as codec.dumps does in four times the time: there is one for each attempt."""
    rest = _rest(usage.written, usage.dropped, usage.core_dumped, usage.output_held, usage.error)
    unsigned = flat.unsigned
    return _USAGE + unsigned(usage.user_us) + unsigned(usage.system_us) + unsigned(usage.peak_kib) + rest


@lru_cache(maxsize=64)
def _rest(*fields: object) -> bytes:
    """Return the CBOR of what is alike in most of them."""
    return b"".join(map(codec.pack, fields))
