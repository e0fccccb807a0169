"""The `TQ_…` variables that tell an attempt what it is: alike for a process and for the call of a function. Pure."""

from typing import Final

# What an attempt does not share with its order: job, value, attempt, lease (vocabulary.AttemptRef) and entry.
Own = tuple[int, int, int, int, bytes | None]


class Names:
    """Those of all attempts of one order. `common` are the ones that do not differ, and all else that stands beside."""

    __slots__ = ("common", "has_text", "is_array")

    def __init__(self, common: dict[bytes, bytes], *, is_array: bool, has_text: bool) -> None:
        self.common: Final = common
        self.is_array: Final = is_array
        self.has_text: Final = has_text  # an entry is text in columns, and not plain data

    def of(self, job: int, value: int, attempt: int, lease: int, entry: bytes | None) -> dict[bytes, bytes]:
        """Return those of one attempt."""
        names = self.common.copy()
        names[b"TQ_JOB"] = task = b"%d" % job
        if self.is_array:
            names[b"TQ_MEMBER"] = member = b"%d" % value
            task += b"." + member
        names[b"TQ_TASK"] = task
        names[b"TQ_ATTEMPT"] = b"%d" % attempt
        names[b"TQ_FENCE"] = b"%d" % lease
        if entry is not None and self.has_text:
            names[b"TQ_ENTRY"] = entry.replace(b"\0", b" ")
        return names
