"""Where the server of a worker is now: what was found at first, and what is found at each look after it.

Finding is the caller's (the command line reads the connection file, the environment, a join string). Here is what a
worker makes of it: while nothing sensible is found, the server is where it was. Never dials, but for the CA of a
server that is known by its hash alone.
"""

import ssl
from collections.abc import Callable
from pathlib import Path

from tq.errors import TqError
from tq.net import tls
from tq.net.dial import known_ca
from tq.net.log import log
from tq.worker.settings import Server, check_server

Find = Callable[[], Server]


class Discovery:
    """The server that is dialled next. `find` raises TqError when it finds none."""

    def __init__(self, server: Server, find: Find) -> None:
        self.server = server
        self._find = find
        self._context: ssl.SSLContext | None = None

    def look(self) -> bool:
        """Look again; return whether something is different from what was known."""
        try:
            found = self._find()
            check_server(found)
            context = tls.client_context(found.ca_pem) if found.ca_pem else None
        except TqError:
            return False  # the file is away while the server is, or somebody has broken it
        if found == self.server:
            return False
        log("server_moved", url=found.address, was=self.server.address)
        self.server, self._context = found, context
        return True

    async def tls(self, state: Path) -> ssl.SSLContext:
        """Return what verifies the server; at a first contact its CA is fetched and compared with the known hash."""
        if self._context is None:
            server = self.server
            self._context = tls.client_context(server.ca_pem or await known_ca(server.address, server.ca_sha256, state))
        return self._context
