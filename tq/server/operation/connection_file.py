"""The connection file: how the programs of the same user on this machine find the server, and prove who asks.

    DATA/connection.json     url (from here), listen (what is bound), ca (PEM), token (an admin's), pid
    STATE/connection.json    the same, and where DATA is

Mode 0600, written when the server accepts connections, removed at a clean stop. The one in STATE belongs to the first
server of the user that runs: another one leaves it alone, and is found by who names its DATA, as one is that cannot
write there. The token in it is the data directory's own: kept in DATA/identity/admin.token, so that it survives
restarts and a worker can go on with what it has.
"""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from tq.errors import ConfigurationError, Unauthorised
from tq.net.address import EVERYWHERE, joined
from tq.net.log import log
from tq.net.token import Token, parse_token
from tq.store import files, lock, trust

NAME: Final = "connection.json"
TOKEN_NAME: Final = "admin.token"  # noqa: S105 - a file's name


class Connection(NamedTuple):
    """What the file says."""

    url: str
    ca_pem: str
    token: Token
    listen: str  # the address that was bound: others may reach it at another one than `url`

    def written(self, data: str = "") -> bytes:
        """Return the contents of the file."""
        fields = {
            "url": self.url, "listen": self.listen, "ca": self.ca_pem, "token": self.token.text, "pid": os.getpid(),
        }  # fmt: skip
        if data:
            fields["data"] = data
        return json.dumps(fields, indent=1).encode() + b"\n"


def local_url(host: str, port: int) -> str:
    """Return the address at which a program on this machine reaches what is bound to `host`."""
    return f"tq://{joined(EVERYWHERE.get(host, host), port)}"


def write_files(connection: Connection, data: Path, state: Path) -> Path | None:
    """Write both files, each at once or not at all; the one in DATA last: it says that the server can be used.

    Return the data directory of another server that runs and has the one in STATE, None if this one has it now, or
    would have: the user of a service may have no home, or one that is full, and who names DATA needs none.
    """
    other, found_by = None, f"`tq` finds this server with TQ_DATA={data}"
    try:
        trust.check(state / NAME)  # no program of this user would believe it
        other = _other(state, data)
        files.make_directory(state)
        if other is None:
            files.replace(state / NAME, connection.written(str(data)), is_shared=True)
    except OSError as error:
        log("not_announced", level="warning", error=f"cannot write {state / NAME}: {error.strerror}", hint=found_by)
    except ConfigurationError as error:
        log("not_announced", level="warning", error=error, hint=f"{error.hint}; {found_by}")
    files.replace(data / NAME, connection.written())
    return other


def _other(state: Path, data: Path) -> Path | None:
    """Return the data directory of the other server whose file is in STATE, if that one runs: its lock tells."""
    named = _said(state / NAME).get("data")
    other = Path(named) if isinstance(named, str) and named else data
    # By a link it may be named otherwise, and then the lock is this server's own.
    return other if other != data and lock.is_held(other) and not other.samefile(data) else None


def remove_files(data: Path, state: Path) -> None:
    """Remove what this process has written for that directory."""
    for path in (data / NAME, state / NAME):
        said = _said(path)
        if said.get("pid") == os.getpid() and said.get("data", str(data)) == str(data):
            with suppress(OSError):
                path.unlink()


def _said(path: Path) -> dict[str, Any]:
    """Return what a file says, {} for one that is not there or makes no sense."""
    with suppress(OSError, ValueError):
        said = json.loads(path.read_bytes())
        return said if isinstance(said, dict) else {}
    return {}


def read_token(data: Path) -> Token | None:
    """Return the data directory's own admin token, None if it has none (yet, or not any more).

    Raises ConfigurationError for one that others may have written.
    """
    try:
        return parse_token(trust.read(data / "identity" / TOKEN_NAME).decode().strip())
    except (OSError, UnicodeDecodeError, Unauthorised):
        return None


def keep_token(data: Path, token: Token) -> None:
    """Keep the token as the data directory's own."""
    files.replace(data / "identity" / TOKEN_NAME, token.text.encode() + b"\n")
