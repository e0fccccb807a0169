"""The join string, and the first contact of a client that has nothing but it. Sans-I/O: both clients use it.

`tq1.<SHA-256 of the CA certificate, hex>.<token>`. The client asks for the CA over a connection that proves nothing
(`GetCA`, the only question that a server answers before it knows the peer), compares the hash, and from then on
makes verified connections only. The token is never sent on the first one. It is a secret: no error repeats it.
"""

import hashlib
import re
import ssl
from typing import Final, NamedTuple

from tq.errors import ConfigurationError, ProtocolError, Unauthorised, Unreachable
from tq.net.token import parse_token
from tq.wire.connection import Connection
from tq.wire.messages import CA, GetCA, Refused

_JOIN: Final = re.compile(r"tq1\.([0-9a-fA-F]{64})\.(tq[aswr]_\S+)")


class Join(NamedTuple):
    """What a join string says. `str()` gives the string back; the repr does not show the secret."""

    ca_sha256: str
    token: str

    def __str__(self) -> str:
        return f"tq1.{self.ca_sha256}.{self.token}"

    def __repr__(self) -> str:
        return f"<Join {self.ca_sha256}>"


def parse_join(text: str) -> Join:
    """Split a join string; ConfigurationError says what is wrong with it, without repeating it."""
    text = "".join(text.split())  # terminals and mail programs break long lines
    match = _JOIN.fullmatch(text)
    if match is None:
        version = re.match(r"tq(\d+)\.", text)
        why = "is of a newer tq" if version and int(version[1]) > 1 else "is malformed"
        raise ConfigurationError(f"the join string {why}", hint="copy it whole from `tq join`: tq1.<hash>.<token>")
    try:
        parse_token(match[2])
    except Unauthorised as error:
        raise ConfigurationError(f"the join string is damaged: {error}", hint="copy it whole from `tq join`") from None
    return Join(match[1].lower(), match[2])


def ca_sha256(pem: str) -> str:
    """Return the SHA-256 of a PEM certificate's DER bytes, hex. ValueError if it is not one certificate alone."""
    if pem.count("-----BEGIN") > 1:  # the hash of the first would say nothing about the others
        raise ValueError("more than one certificate")
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.strip())).hexdigest()


class Pinning:
    """The exchange `GetCA` -> `CA` without I/O: send `question`, feed `receive_data` until it returns the CA.

    `wanted` is the SHA-256 that the join string names. Nothing else that the other end says is believed.
    """

    def __init__(self, wanted: str) -> None:
        self._wanted = wanted.lower()
        self._connection = Connection()
        self.question = self._connection.send([GetCA()])

    def receive_data(self, data: bytes) -> str | None:
        """Return the CA's PEM text once it has come and is the right one; None as long as more is needed.

        `data` b"" is the end of the stream (Unreachable). Raises Unauthorised when it is another CA, ProtocolError for
        nonsense.
        """
        if not data:
            raise Unreachable("the other end closed before it sent its CA", hint="is a tq server at this address?")
        for message in self._connection.receive_data(data):
            if isinstance(message, Refused):
                raise ProtocolError(f"the server refused to send its CA: {message.message}", hint=message.hint)
            if not isinstance(message, CA):
                raise ProtocolError(f"{type(message).__name__} came where the CA was asked for")
            return self._checked(message.pem)
        return None

    def _checked(self, pem: bytes) -> str:
        try:
            der = ssl.PEM_cert_to_DER_cert(pem.decode("ascii").strip())
        except ValueError:
            raise ProtocolError("what the server sent as its CA is not a certificate") from None
        if hashlib.sha256(der).hexdigest() != self._wanted:
            raise Unauthorised(
                "the server's CA is not the one that the join string names: another server, or someone between",
                hint="get a new join string from `tq join` on the server",
            )
        # Never the text that came: base64 ends at its padding, so a second certificate could stand behind the one that
        # was hashed, and OpenSSL would trust both.
        return ssl.DER_cert_to_PEM_cert(der)
