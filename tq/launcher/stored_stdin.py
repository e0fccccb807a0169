"""Stdin that came with a task, kept by the launcher in anonymous files: read from the beginning by each attempt."""

import fcntl
import os
from typing import Final

from tq.launcher.protocol import Input

# A task may open it anew, for writing (`> /dev/stdin`), and others read it too.
_SEALS: Final = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class StoredInput:
    """Stdin that came with the task, in an anonymous file; each attempt reads it from its beginning.

    Shared by all attempts that wait for it: the last one to be forgotten closes it.
    """

    __slots__ = ("_fd", "_is_sealed", "size")

    def __init__(self, data: bytes = b"") -> None:
        self._fd = -1  # without a file there is nothing to close
        self._fd = os.memfd_create("tq-stdin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._is_sealed = False
        self.size = 0
        self.append(data)

    def append(self, data: bytes) -> None:
        """Add a piece at the end."""
        view = memoryview(data)
        while view:
            written = os.write(self._fd, view)
            self.size += written
            view = view[written:]

    def open(self) -> int:
        """Return a new descriptor at byte 0, read-only. The caller closes it. From now on nothing is added."""
        if not self._is_sealed:
            fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, _SEALS)
            self._is_sealed = True
        return os.open(f"/proc/self/fd/{self._fd}", os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)


class StoredInputs:
    """The large inputs that have come, by their numbers."""

    def __init__(self) -> None:
        self._stored: Final[dict[int, StoredInput]] = {}

    def store(self, piece: Input) -> None:
        """Keep a piece. What cannot be kept is forgotten whole, and its attempts go back when they come."""
        try:
            stored = self._stored.get(piece.blob)
            if stored is None and piece.offset == 0:  # else one before it could not be kept
                stored = self._stored[piece.blob] = StoredInput()
            if stored is not None and piece.offset == stored.size:  # an earlier offset is a repeat
                stored.append(piece.data)
        except OSError:
            self.forget(piece.blob)

    def get(self, blob: int) -> StoredInput | None:
        """Return this input, None for number 0. Raises FileNotFoundError."""
        if blob == 0:
            return None
        if blob not in self._stored:
            raise FileNotFoundError(f"the launcher does not have input {blob}")
        return self._stored[blob]

    def forget(self, blob: int) -> None:
        """Keep it no more; attempts that wait for it still have it."""
        self._stored.pop(blob, None)
