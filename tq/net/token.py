"""What a token looks like, and how one is recognised. Pure: the dice are passed in.

    tqw_k3xw7a2m9q_0hBv…43 characters…Kx_1Z9qTf
    --- ---------- --------------------- ------
    role, id, secret (256 bits, base64url), checksum (CRC-32 of all before it, base 62)

The prefix lets scanners find leaked tokens, the checksum tells a slip of the hand from a wrong token without asking
a server. The server keeps only the SHA-256 of the whole text. No error of this module repeats what it was given.
"""

import hashlib
import hmac
import re
import zlib
from base64 import b32encode, urlsafe_b64encode
from typing import Final, NamedTuple

from tq.errors import BadRequest, Unauthorised

RANDOM_BYTES: Final = 7 + 32  # for the id, and for the secret
ID_CHARS: Final = 10
_CHECKSUM_CHARS: Final = 6
_LETTERS: Final = {"admin": "a", "submit": "s", "worker": "w", "read": "r"}
_ROLES: Final = {letter: role for role, letter in _LETTERS.items()}
_BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_TOKEN: Final = re.compile(r"tq([aswr])_([a-z2-7]{10})_([A-Za-z0-9_-]{43,128})([0-9A-Za-z]{6})")


class Token(NamedTuple):
    """A token's text, which is the secret, and what the text says about itself. Never shows the secret in a repr."""

    text: str
    role: str
    id: str

    @property
    def digest(self) -> bytes:
        """SHA-256 of the text: what is stored."""
        return sha256_of(self.text)

    def __repr__(self) -> str:
        return f"<Token {self.role} {self.id}>"


def make_token(role: str, random: bytes) -> Token:
    """Return a new token of `role` from RANDOM_BYTES bytes of a cryptographic source."""
    if role not in _LETTERS:
        raise BadRequest(f"there is no role {role}", hint=f"one of {', '.join(_LETTERS)}")
    if len(random) != RANDOM_BYTES:
        raise ValueError(f"a token is made of {RANDOM_BYTES} random bytes")
    name = b32encode(random[:7]).decode("ascii")[:ID_CHARS].lower()
    secret = urlsafe_b64encode(random[7:]).rstrip(b"=").decode("ascii")
    text = f"tq{_LETTERS[role]}_{name}_{secret}"
    return Token(text + _checksum(text), role, name)


def parse_token(text: str) -> Token:
    """Return what a token says about itself, true or not. Unauthorised if it is malformed or mistyped."""
    match = _TOKEN.fullmatch(text)
    if match is None:
        raise Unauthorised("this is not a token of tq", hint="copy it whole: it begins with tqa_, tqs_, tqw_ or tqr_")
    if not hmac.compare_digest(_checksum(text[:-_CHECKSUM_CHARS]), match[4]):
        raise Unauthorised("the token's checksum is wrong", hint="copy it again, whole")
    return Token(text, _ROLES[match[1]], match[2])


def sha256_of(text: str) -> bytes:
    """Return the SHA-256 of a token's text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def is_token(text: str, digest: bytes) -> bool:
    """Whether `text` is the token with this stored digest; takes the same time for every wrong one."""
    return hmac.compare_digest(sha256_of(text), digest)


def _checksum(text: str) -> str:
    number = zlib.crc32(text.encode("ascii"))
    digits = []
    for _ in range(_CHECKSUM_CHARS):
        number, digit = divmod(number, 62)
        digits.append(_BASE62[digit])
    return "".join(reversed(digits))
