"""Where the server of a worker is now: what was found at first, and what is found at each look after it.

Finding is the caller's (the command line reads the connection file, the environment, a join string). Here is what a
worker makes of it: while nothing sensible is found, the server is where it was. Never dials, but for the CA of a
server that is known by its hash alone.
"""

import ssl
from collections.abc import Callable
from pathlib import Path

from tq.errors import TqError
from tq.net import pinning, tls
from tq.net.dial import fetch_ca
from tq.net.log import log
from tq.worker.settings import Server, check_server

Find = Callable[[], Server]


class Whereabouts:
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
            self._context = tls.client_context(self.server.ca_pem or await self._pinned_ca(state))
        return self._context

    async def _pinned_ca(self, state: Path) -> str:
        server = self.server
        pem = pinning.load(state, server.ca_sha256)
        if not pem:
            pem = await fetch_ca(server.address, server.ca_sha256)
            pinning.keep(state, server.ca_sha256, pem)
        return pem
