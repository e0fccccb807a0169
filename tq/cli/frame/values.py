"""Words on the command line to values: durations, array ranges, names, tags, memory and CPUs.

Pure: text in, value out, or `BadRequest` with a sentence for the person. The bounds are those of limits.py; what the
client refuses here is never sent, so that a wrong value stores nothing.
"""

import re
import signal
from typing import NamedTuple

from tq import limits
from tq.core.model.ids import ID_LIKE_HINT, NAME_HINT, is_name, means_ids
from tq.errors import BadRequest

_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)(ms|s|m|h|d|w)?", re.ASCII)
_ARRAY = re.compile(r"(-?\d{1,20})-(-?\d{1,20})(?::(-?\d{1,20}))?(?:%(\d{1,20}))?", re.ASCII)
_SIZE_BYTES_MAX = 2**60
_SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)([KMGT]?)i?B?", re.IGNORECASE | re.ASCII)
_DURATION_MS_MAX = 100 * 365 * 86_400_000
_VALUE_MAX = 2**53  # every array value fits a number of JSON and of a shell


class ArrayRange(NamedTuple):
    """`first`, `first + step`, …: `size` members, at most `throttle` of them running at once (0 = no bound)."""

    first: int
    step: int
    size: int
    throttle: int


def duration_ms(text: str) -> int:
    """Parse `10ms`, `5m`, `1h`, `7d`, `1.5h` or plain seconds into ms. Several parts add up: `1h30m`."""
    total, position = 0.0, 0
    word = text.strip().lower()
    while position < len(word):
        part = _DURATION.match(word, position)
        if part is None or (position and part[2] is None):
            break
        total += float(part[1]) * _UNIT_MS[part[2] or "s"]
        position = part.end()
    if not word or position != len(word):
        raise BadRequest(f"{text!r} is not a duration", hint="write seconds, or 10ms, 5m, 1h, 7d")
    if total > _DURATION_MS_MAX:
        raise BadRequest(f"{text!r} is longer than a hundred years")
    return round(total)


def array_range(text: str) -> ArrayRange:
    """Parse `A-B`, `A-B:STEP` and `A-B%THROTTLE` (both together too)."""
    match = _ARRAY.fullmatch(text.strip())
    if match is None:
        hint = "write FIRST-LAST, as in 1-100, 0-99:3 or 1-100%4"
        if "," in text:
            hint = "a range has a first and a last number; others are a list, as in `tq submit -- echo {} ::: 1 3 7`"
        raise BadRequest(f"{text!r} is not an array range", hint=hint)
    first, last = int(match[1]), int(match[2])
    step, throttle = int(match[3] or 1), int(match[4] or 0)
    if last < first:
        raise BadRequest(f"the array range {text!r} runs backwards", hint=f"write {last}-{first}")
    if step < 1:
        raise BadRequest(f"the step of the array range {text!r} must be at least 1")
    if match[4] is not None and throttle < 1:
        raise BadRequest(f"the throttle of the array range {text!r} must be at least 1")
    if first < 0 or last > _VALUE_MAX:
        raise BadRequest(f"the array range {text!r} must lie between 0 and {_VALUE_MAX}")
    size = (last - first) // step + 1
    if size > limits.array_size_max:
        raise BadRequest(
            f"the array range {text!r} has {size} members; array_size_max is {limits.array_size_max}",
            hint="submit several arrays",
        )
    return ArrayRange(first, step, size, min(throttle, size))


def name(text: str, what: str = "name") -> str:
    """Check a name, tag, queue or key. Raises BadRequest."""
    if len(text) > limits.name_chars_max:
        raise BadRequest(f"the {what} has {len(text)} characters; name_chars_max is {limits.name_chars_max}")
    if not is_name(text):
        raise BadRequest(f"{text!r} is not a {what}", hint=NAME_HINT)
    return text


def findable(text: str, what: str = "name") -> str:
    """Check a name or tag of a job, which is written where an id may stand."""
    if means_ids(name(text, what)):
        raise BadRequest(f"{text!r} is not a {what}: where an id may stand it means ids", hint=ID_LIKE_HINT)
    return text


def tags(texts: list[str]) -> tuple[str, ...]:
    """Check tags; `a,b` counts as two. Repeats are dropped, order is kept."""
    words = [word for text in texts for word in text.split(",") if word or text == ""]
    found = tuple(dict.fromkeys(findable(word, "tag") for word in words))
    if len(found) > limits.tags_max:
        raise BadRequest(f"{len(found)} tags; tags_max is {limits.tags_max}")
    return found


def states(texts: list[str] | None) -> tuple[str, ...]:
    """Return the words of states; `a,b` counts as two. The server knows which there are."""
    return tuple(word for text in texts or [] for word in text.lower().split(",") if word)


def priority(value: int) -> int:
    """Check a priority: -100 (last) to 100 (first)."""
    bound = limits.priority_max
    if not -bound <= value <= bound:
        raise BadRequest(f"the priority {value} must lie between {-bound} and {bound}")
    return value


def count(value: int, what: str) -> int:
    """Check a number of times: not negative, and not absurd."""
    if not 0 <= value <= limits.retries_max:
        raise BadRequest(f"{what} {value}: a number of times is between 0 and {limits.retries_max}")
    return value


def backoff_ms(text: str) -> tuple[int, int]:
    """Parse `1s..5m` into the first and the longest wait; one value is both."""
    first, dots, longest = text.partition("..")
    waits = (duration_ms(first), duration_ms(longest if dots else first))
    if waits[0] > waits[1]:
        raise BadRequest(f"the backoff {text!r} shrinks", hint=f"write {longest}..{first}")
    if waits[1] > limits.backoff_ms_max:
        raise BadRequest(f"the backoff {text!r} is longer than a week (backoff_ms_max)")
    return waits


def codes(texts: list[str], what: str) -> tuple[int, ...]:
    """Parse exit codes and signals, `1,75,TERM`: a signal N is returned as -N. Repeats are dropped, order is kept."""
    words = [word.strip() for text in texts for word in text.split(",")]
    found = tuple(dict.fromkeys(_code(word, what) for word in words))
    if len(found) > limits.retry_codes_max:
        raise BadRequest(f"{what} has {len(found)} codes; retry_codes_max is {limits.retry_codes_max}")
    return found


def _code(word: str, what: str) -> int:
    if word.isascii() and word.isdecimal() and int(word) <= limits.exit_code_max:
        return int(word)
    number = _signal(word)
    if not number:
        raise BadRequest(f"{what} {word!r}: no exit code and no signal", hint="write 0 to 255, or TERM, KILL")
    return -number


def stop_signal(text: str, what: str) -> int:
    """Parse a signal, `INT`, `SIGINT` or `2`."""
    word = text.strip()
    is_number = word.isascii() and word.isdecimal() and len(word) < 3
    number = int(word) if is_number else _signal(word)
    if number not in signal.valid_signals():
        raise BadRequest(f"{what} {text!r} is not a signal", hint="write TERM, INT, USR1, 15")
    return number


def _signal(word: str) -> int:
    """Return the number of a signal by its name, with or without SIG; 0 for no name."""
    names = signal.Signals.__members__
    return int(names.get("SIG" + word.upper().removeprefix("SIG"), 0))


def cpus_milli(text: str) -> int:
    """Parse a number of CPUs, such as `2` or `0.5`, into thousandths."""
    match = re.fullmatch(r"[0-9]{1,6}(?:\.[0-9]{1,3})?", text.strip())
    if match is None:
        raise BadRequest(f"{text!r} is not a number of CPUs", hint="write 1, 2 or 0.5")
    return round(float(match[0]) * 1_000)


def size_bytes(text: str) -> int:
    """Parse `8G`, `512M` or plain bytes. Units are powers of 1024."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise BadRequest(f"{text!r} is not a size", hint="write bytes, or 512M, 8G")
    factor: int = 1024 ** " KMGT".index(match[2].upper() or " ")
    size = round(float(match[1]) * factor)
    if size > _SIZE_BYTES_MAX:
        raise BadRequest(f"{text!r} is more than an exbibyte", hint="write bytes, or 512M, 8G")
    return size


def variable(text: str) -> str:
    """Check the name of an environment variable."""
    if not text or "=" in text or "\0" in text:
        raise BadRequest(
            f"{text!r} is not the name of an environment variable", hint="write NAME=VALUE, or NAME to pass on"
        )
    return text


def listen_address(text: str) -> tuple[str, int]:
    """Parse `HOST:PORT` or `[::1]:PORT`."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not (port.isascii() and port.isdecimal()) or int(port) > 65_535:
        raise BadRequest(f"{text!r} is not an address", hint="write HOST:PORT, as in 127.0.0.1:7878")
    return host, int(port)


def why_no_json(text: str | bytes, error: Exception) -> str:
    r"""Return why a text is not JSON: of a `\ud800` alone the decoder says no more than that the input was cut."""
    import json  # only who has made a mistake pays for it

    try:
        json.dumps(json.loads(text), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return r"a text in it is no Unicode (half of a surrogate pair, as in \ud800)"
    except (ValueError, RecursionError):
        pass
    return str(error)


def check_keys(text: str | bytes, what: str) -> None:
    """Raise BadRequest where an object of this JSON has a key twice: readers keep one value, and say nothing."""
    import json

    def look(pairs: list[tuple[str, object]]) -> None:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise BadRequest(f"{what} has the key {key!r} twice in one map", hint="leave one of them out")
            seen.add(key)

    json.loads(text, object_pairs_hook=look)
