"""Where a server is: `tq://host:port`. Pure, and cheap to import: the short paths of the command line do."""

import re
from typing import Final, NamedTuple

from tq.errors import ConfigurationError

DEFAULT_PORT: Final = 7878
DEFAULT_URL: Final = f"tq://127.0.0.1:{DEFAULT_PORT}"
LOOPBACK: Final = frozenset(("127.0.0.1", "::1", "localhost"))  # hosts that only this machine is behind
EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what is bound, and where that is found from here

_URL: Final = re.compile(
    r"tq://(?:\[(?P<v6>[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|(?P<host>[^\s/\[\]:@?#]+))(?::(?P<port>\d{1,5}))?/?"
)


class Address(NamedTuple):
    """Host (a name or a literal address, IPv6 without brackets) and port of a server."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"tq://{joined(self.host, self.port)}"


def joined(host: str, port: int) -> str:
    """Return `host:port` as people write it, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def hint_of(host: str) -> str:
    """Return what to look at where no server answers at this host."""
    if host in LOOPBACK:
        return "start one with `tq up`"
    return "is the address right, does it run, does it listen for others (--listen), and is no firewall between?"


def parse_address(url: str) -> Address:
    """Split `tq://host[:port]`, or raise ConfigurationError."""
    match = _URL.fullmatch(url.strip())
    port = int(match["port"] or DEFAULT_PORT) if match else 0
    if match is None or not 0 < port < 65_536:
        raise ConfigurationError(
            f"{url!r} is not an address of a server", hint=f"write tq://HOST:PORT, as in {DEFAULT_URL}"
        )
    return Address(match["v6"] or match["host"], port)
