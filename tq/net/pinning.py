"""CAs known by their SHA-256, kept in the state directory: the first join trusts a hash, later ones the file.

A CA that does not have the expected hash is never kept and never used. Both clients and workers keep theirs here.
"""

import os
from contextlib import suppress
from pathlib import Path

from tq.errors import ConfigurationError
from tq.net.join import ca_sha256


def load(state_directory: Path, digest: str) -> str:
    """Return the kept CA with this hash, "" when there is none (or the file is damaged)."""
    try:
        ca_pem = _path(state_directory, digest).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
    try:
        return ca_pem if ca_sha256(ca_pem) == digest else ""
    except ValueError:
        return ""


def keep(state_directory: Path, digest: str, ca_pem: str) -> None:
    """Keep a CA whose hash was compared already. A directory that cannot be written, or that others may write to, only
    costs asking again.
    """
    from tq.store import files, trust  # once for each server: who has its CA does not pay for it

    path = _path(state_directory, digest)
    scratch = path.with_suffix(f".{os.getpid()}")
    try:
        trust.check(path.parent)
        files.make_directory(path.parent)
        scratch.write_text(ca_pem, encoding="ascii")
        scratch.replace(path)
    except ConfigurationError:
        pass
    except OSError:
        with suppress(OSError):
            scratch.unlink()


def _path(state_directory: Path, digest: str) -> Path:
    return state_directory / "cas" / f"{digest}.pem"
