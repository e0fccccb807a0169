"""Documents of the server as programs see them, by `-o json` and in Python: ISO times, seconds, text, exit codes.

Pure. On the wire an instant is `started_ms` and a duration `run_us` or `time_limit_ms`; here they become `started_at`
("2026-01-31T12:00:00.123Z", None when it has not come) and `run_s` (seconds). `code` becomes `exit_code` and `signal`.
Keys that are not known pass through, so that a newer server says more.
"""

from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from tq.errors import ProtocolError
from tq.limits import exit_code_max

_T = TypeVar("_T")

# An `_ms` whose stem is not here is a duration, and becomes `_s`.
_INSTANTS: Final = frozenset(
    (
        "submitted", "job_ended", "leased", "started", "ended", "due", "created", "expires", "used", "since", "seen",
        "now",
    )
)  # fmt: skip
_WITHOUT_CODE: Final = frozenset(("none", "lost", "cwd_missing", "drain", "cut_off"))


def document(value: Any) -> Any:
    """Return `value` with every key and value in the form of the contract. Dicts and lists are new ones."""
    if isinstance(value, dict):
        fields: dict[str, Any] = {}
        for key, item in value.items():
            if key == "code" and isinstance(item, int):
                fields.update(_ending(value))
            elif isinstance(item, bytes) and key in {"body", "usage", "result"}:
                continue  # opaque: the server opens what this reader may see
            else:
                name, shown = _field(key, item)
                fields[name] = shown
        return fields
    if isinstance(value, (list, tuple)):
        return [document(item) for item in value]
    if isinstance(value, bytes):
        return text(value)
    return value


def instant(ms: int) -> str | None:
    """Return wall ms as ISO 8601 in UTC, None for 0 (it has not come)."""
    if not ms:
        return None
    try:
        moment = datetime.fromtimestamp(ms / 1_000, UTC)
    except (OverflowError, ValueError, OSError):
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def text(value: bytes) -> str:
    """Return bytes as text; what is not UTF-8 as backslash escapes."""
    return value.decode("utf-8", "backslashreplace")


def _field(key: str, item: Any) -> tuple[str, Any]:
    if isinstance(item, int) and not isinstance(item, bool):
        stem, _, unit = key.rpartition("_")
        if unit == "ms" and stem in _INSTANTS:
            return f"{stem}_at", instant(item)
        if unit == "ms" and stem:
            return f"{stem}_s", item / 1_000
        if unit == "us" and stem:
            return f"{stem}_s", item / 1_000_000
        if key == "id":
            return key, str(item)
    return key, document(item)


def _ending(value: dict[str, Any]) -> dict[str, int | None]:
    """Exit code and signal of an attempt; both null as long as it has not ended by itself."""
    code, cause = value["code"], value.get("cause") or "none"
    is_unheard = cause == "cancelled" and value.get("phase", "ended") != "ended"  # it had none, or lost it
    if not value.get("ended_ms") or is_unheard or cause in _WITHOUT_CODE:
        return {"exit_code": None, "signal": None}
    if code < 0:
        return {"exit_code": None, "signal": -code}
    return {"exit_code": code if code <= exit_code_max else None, "signal": None}


def expect(kind: type[_T], answer: object) -> _T:
    """Return an answer of this kind. Raises ProtocolError for another one."""
    if not isinstance(answer, kind):
        raise ProtocolError(f"the server answered with {type(answer).__name__}, not {kind.__name__}")
    return answer
