"""Who the server is: its own CA, its certificate, and the dice for tokens. Owner of cryptography.

    DATA/identity/            0700
      ca.pem  ca.key          made once, at the first start; clients remember the CA's SHA-256
      cert.pem  cert.key      made anew at each start, for the name `tq`

Keys are 0600, created with O_EXCL, never overwritten in place. The directory appears complete or not at all: it is
filled under another name, synced, and renamed. A directory or key that others can read is refused, not mended: by
then somebody may have read it.
"""

import datetime as dt
import ipaddress
import os
import secrets
import shutil
import ssl
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tq.errors import ConfigurationError
from tq.net import tls
from tq.net.join import Join, ca_sha256
from tq.net.token import RANDOM_BYTES, Token, make_token
from tq.store import files, trust

_CA_LIFE: Final = dt.timedelta(days=30 * 365)
_LEAF_LIFE: Final = dt.timedelta(days=825)
_SKEW: Final = dt.timedelta(days=1)  # clients whose clocks are behind
_BACKDATED_CA: Final = dt.timedelta(days=2)


class Identity(NamedTuple):
    """What the server shows and uses. `context` is ready for the listener; the key is in it and nowhere else."""

    ca_pem: str
    ca_sha256: str
    context: ssl.SSLContext
    expires: dt.datetime  # of the certificate in use

    def join(self, token: Token) -> Join:
        """Return the join string for this server with this token."""
        return Join(self.ca_sha256, token.text)


def new_token(role: str) -> Token:
    """Return a new token: its text is shown once, its digest stored."""
    return make_token(role, secrets.token_bytes(RANDOM_BYTES))


def open_identity(directory: Path, now: dt.datetime) -> Identity:
    """Return the server's identity from DATA/identity, made at the first start, with a fresh certificate.

    `now` is aware. Raises ConfigurationError for a directory that is incomplete, damaged, or open to others.
    """
    if not os.path.lexists(directory):
        _create(directory, now)
    ca_key, ca = _read_ca(directory)
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = _leaf(ca, ca_key, key, now)
    ca_pem = _pem(ca)
    files.replace(directory / "cert.key", _key_pem(key))
    files.replace(directory / "cert.pem", _pem(leaf) + ca_pem)
    context = tls.server_context(str(directory / "cert.pem"), str(directory / "cert.key"))
    text = ca_pem.decode("ascii")
    return Identity(text, ca_sha256(text), context, leaf.not_valid_after_utc)


def check_identity(directory: Path) -> None:
    """Raise what `open_identity` would of an identity that is there; change nothing."""
    if os.path.lexists(directory):
        _read_ca(directory)


def own_identity(certificate: Path, key: Path, now: dt.datetime) -> Identity:
    """Return the identity that an administrator brought: `--cert` and `--key`, for the name `tq`.

    Clients trust the last certificate of the chain. What none of them would accept is refused.
    """
    with suppress(OSError):  # what cannot be read is said below
        for path in (certificate, key):
            trust.check(path)
    context = tls.server_context(str(certificate), str(key))
    try:
        chain = x509.load_pem_x509_certificates(certificate.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot read the certificate {certificate}: {error}") from error
    if tls.SERVER_NAME not in _names(chain[0]):
        raise ConfigurationError(
            f"the certificate {certificate} is not for the name {tls.SERVER_NAME}",
            hint=f"make one with DNS:{tls.SERVER_NAME} among its subject alternative names",
        )
    if chain[-1].subject != chain[-1].issuer:
        raise ConfigurationError(
            f"the chain in {certificate} does not end with the certificate of its CA", hint="append that one"
        )
    begins, expires = max(one.not_valid_before_utc for one in chain), min(one.not_valid_after_utc for one in chain)
    if not begins <= now < expires:
        raise ConfigurationError(
            f"the certificates in {certificate} are valid from {begins:%Y-%m-%d %H:%M} to {expires:%Y-%m-%d %H:%M} UTC",
            hint="renew what has expired; look at this machine's clock",
        )
    text = _pem(chain[-1]).decode("ascii")
    return Identity(text, ca_sha256(text), context, chain[0].not_valid_after_utc)


# ---------------------------------------------------------------- certificates


def _create(directory: Path, now: dt.datetime) -> None:
    """Make the CA in a directory beside, then rename it: complete or not at all, also after a power cut."""
    files.make_directory(directory.parent)
    fresh = directory.with_name(f"{directory.name}.new")
    if fresh.exists():  # a start that was cut off here
        shutil.rmtree(fresh)
    fresh.mkdir(mode=0o700)
    key = ec.generate_private_key(ec.SECP256R1())
    files.write_new(fresh / "ca.key", [_key_pem(key)])
    files.write_new(fresh / "ca.pem", [_pem(_ca(key, now))])
    files.sync_directory(fresh)
    fresh.rename(directory)
    files.sync_directory(directory.parent)


def _ca(key: ec.EllipticCurvePrivateKey, now: dt.datetime) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"tq CA {secrets.token_hex(4)}")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED_CA)
        .not_valid_after(now + _CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _leaf(
    ca: x509.Certificate, ca_key: ec.EllipticCurvePrivateKey, key: ec.EllipticCurvePrivateKey, now: dt.datetime
) -> x509.Certificate:
    names = x509.SubjectAlternativeName(
        [x509.DNSName(tls.SERVER_NAME), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    )
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, tls.SERVER_NAME)]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(min(now + _LEAF_LIFE, ca.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(names, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.DNSName)


def _read_ca(directory: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    _check_private(directory, "directory")
    key_path = directory / "ca.key"
    _check_private(key_path, "key")
    hint = "restore it from a backup; without it, remove the directory: all clients then have to join again"
    try:
        key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
        ca = x509.load_pem_x509_certificate(trust.read(directory / "ca.pem"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the server's CA in {directory} cannot be read: {error}", hint=hint) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != ca.public_key():
        raise ConfigurationError(f"ca.key and ca.pem in {directory} do not belong together", hint=hint)
    return key, ca


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


# ---------------------------------------------------------------- files


def _check_private(path: Path, what: str) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        raise ConfigurationError(f"the {what} {path} is missing", hint="restore it from a backup") from None
    is_kind = stat.S_ISDIR(found.st_mode) if what == "directory" else stat.S_ISREG(found.st_mode)
    if not is_kind:
        raise ConfigurationError(f"{path} is not a {what}")
    more = "; if others may have read the keys, remove the directory: all join again"
    trust.check_private(path, what, more=more)
