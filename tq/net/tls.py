"""The TLS contexts of tq: version 1.3 only, ALPN `tq/1`, the server's certificate checked against its own CA.

There is no switch that turns any of it off. The name in the certificate is always `tq`, whatever the address: a
server that moves keeps its clients. A CA is pinned by its hash. Imports no trio: the blocking client uses it, too.
"""

import os
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Final

from tq.errors import ConfigurationError, Unauthorised, Unreachable
from tq.net.join import ca_sha256

ALPN: Final = "tq/1"
SERVER_NAME: Final = "tq"
_NOT_TLS: Final = "something else than TLS"
_OTHER_PROTOCOL: Final = "it speaks TLS, but not the protocol of tq"
# OpenSSL's names for what it met.
_NO_TLS_REASONS: Final = frozenset(
    ("WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "RECORD_TOO_SMALL")
)
_OLD_TLS_REASONS: Final = frozenset(("UNSUPPORTED_PROTOCOL", "VERSION_TOO_LOW", "TLSV1_ALERT_PROTOCOL_VERSION"))
_OTHER_PROTOCOL_REASONS: Final = frozenset(("NO_APPLICATION_PROTOCOL", "TLSV1_ALERT_NO_APPLICATION_PROTOCOL"))
_LOST: Final = "large packets get lost on the way (MTU)"  # the handshake's are the first of that size


def server_context(certificate: str, key: str) -> ssl.SSLContext:
    """Return the context of a server with this certificate chain and key (paths of PEM files)."""
    context = _strict(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    # Nobody resumes sessions here. And a ticket is data that a server sends before the client reads: a client that
    # closes without having read turns it into a reset, and over a stream without buffer both would wait for ever
    # (python-trio/trio#819).
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError is one
        why = error.strerror or getattr(error, "reason", None) or str(error)
        raise ConfigurationError(
            f"cannot use the certificate {certificate} with the key {key}: {why}",
            hint="both must be PEM files, readable, and belong together",
        ) from error
    return context


def client_context(ca_pem: str) -> ssl.SSLContext:
    """Return the context of a client that believes this CA and no other. Use with server_hostname=SERVER_NAME."""
    context = _strict(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))  # verifies certificate and name by default
    try:
        context.load_verify_locations(cadata=ca_pem)
    except (OSError, ValueError) as error:
        raise ConfigurationError("the CA is no PEM certificate", hint="set TQ_CA to the server's ca.pem") from error
    return context


def pinning_context() -> ssl.SSLContext:
    """Return a context that verifies nothing: for `GetCA` alone (net/join.py), whose answer is compared with a hash."""
    context = _strict(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def check_alpn(chosen: str | None, where: str) -> None:
    """Raise Unreachable unless the two ends agreed on `tq/1`: OpenSSL goes on silently when they did not."""
    if chosen != ALPN:
        raise _no_tq(where, _OTHER_PROTOCOL)


def explained(error: BaseException, where: str, chosen: str | None = ALPN) -> Unauthorised | Unreachable:
    """Return the error to show when a client's handshake with `where` failed. Clients and workers say the same.

    `chosen` is the protocol that the other end agreed on, which comes before its certificate: without ours, a
    certificate of others is no attack on tq and no new CA, but another program.
    """
    if isinstance(error, ssl.SSLCertVerificationError) and chosen != ALPN:
        return _no_tq(where, _OTHER_PROTOCOL)
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message or str(error)
        hint = "get a new join string from `tq join` on the server"
        if "not yet valid" in why or "expired" in why:
            hint = "compare the clocks of both machines; a restart of the server renews its certificate"
        return Unauthorised(f"the server at {where} is not the one that is expected: {why}", hint=hint)
    if isinstance(error, TimeoutError):
        hint = f"is it overloaded, or do {_LOST}?"
        return Unreachable(f"{where} accepts connections, but does not answer", hint=hint)
    if not isinstance(error, ssl.SSLError) or isinstance(error, ssl.SSLEOFError):
        hint = f"another program may listen there, the server have too many connections just now, or {_LOST}"
        return Unreachable(f"what listens at {where} closed the connection during the TLS handshake", hint=hint)
    reason = getattr(error, "reason", None) or ""
    if reason in _NO_TLS_REASONS:
        return _no_tq(where, "it does not speak TLS")
    if reason in _OLD_TLS_REASONS:
        return _no_tq(where, "it speaks a TLS version before 1.3")
    if reason in _OTHER_PROTOCOL_REASONS:
        return _no_tq(where, _OTHER_PROTOCOL)
    return _no_tq(where, f"it does not speak TLS as tq does ({_reason(error)})")


def refusal(error: BaseException | None) -> str:
    """Return in a few words why a server refused a handshake, for its log."""
    reason = getattr(error, "reason", None) or ""
    if reason == "HTTP_REQUEST":
        return "plain HTTP instead of TLS"
    if reason in _NO_TLS_REASONS:
        return _NOT_TLS
    if reason in _OLD_TLS_REASONS:
        return "a TLS version before 1.3"
    if not isinstance(error, ssl.SSLError) or isinstance(error, ssl.SSLEOFError):
        return "it closed during the TLS handshake (it may not trust this server's certificate)"
    if not reason:
        return _NOT_TLS  # OpenSSL has no name for what random bytes did to it
    return f"TLS handshake: {_reason(error)}"


def _no_tq(where: str, why: str) -> Unreachable:
    return Unreachable(f"what listens at {where} is not a tq server: {why}", hint="check host and port")


def _reason(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or type(error).__name__
    return str(reason).lower().replace("_", " ")


def _strict(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols([ALPN])
    return context


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
