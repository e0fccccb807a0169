"""Where the server is and how to prove who asks: flag > TQ_* > config.toml > connection file.

A server on this machine and of this user is found by itself, by the connection file that it writes while it listens.
This module only reads, and only what nobody else can have written (store/trust.py): whoever says where the server is
gets environments, and has workers run what he likes. It never talks to anybody, and never prints a token.
"""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tq.errors import ConfigurationError, Unauthorised, Unreachable
from tq.net.address import DEFAULT_PORT, EVERYWHERE, LOOPBACK, joined, parse_address
from tq.store import trust

_SHA256 = re.compile(r"[0-9a-f]{64}")
_TOKEN = re.compile(r"[!-~]{1,256}")  # what may be one; the server knows better
_SECRET = re.compile(r"tq[aswr]_[a-z2-7]{10}_")  # how every token begins, alone or in a join string
_VARIABLES = {"url": "TQ_URL", "token": "TQ_TOKEN", "token_file": "TQ_TOKEN_FILE", "ca": "TQ_CA", "join": "TQ_JOIN"}
_FILE_BYTES_MAX = 64 * 1024  # of a file with a token or a CA


class Setting(NamedTuple):
    """A value and the place it came from, as `tq config` shows it."""

    value: str
    source: str


class Target(NamedTuple):
    """A server to talk to. Exactly one of `ca_pem` and `ca_sha256` is set; `sources` tells where each part came from.

    The token is a secret: it goes into Hello and nowhere else.
    """

    host: str
    port: int
    token: str
    ca_pem: str
    ca_sha256: str
    state_directory: Path
    sources: Mapping[str, str]
    data: Path | None = None  # whose server's connection file says any of it

    @property
    def url(self) -> str:
        """The address as people write it."""
        return f"tq://{joined(self.host, self.port)}"

    def __repr__(self) -> str:
        return f"<Target {self.url}>"


class Directories(NamedTuple):
    """The directories of tq for one environment."""

    data: Path
    state: Path
    config: Path


def directories(environ: Mapping[str, str]) -> Directories:
    """Return the data, state and configuration directories, by the XDG rules."""
    # HOME is unset in cron; and who has no entry in passwd either, as in a container, is at home at the root.
    home = Path("/", environ.get("HOME") or os.path.expanduser("~").removeprefix("~"))  # noqa: PTH111

    def base(variable: str, default: str) -> Path:
        value = environ.get(variable, "")
        return (Path(value) if value.startswith("/") else home / default) / "tq"

    data = environ.get("TQ_DATA", "")
    return Directories(
        data=Path(data).absolute() if data else base("XDG_DATA_HOME", ".local/share"),
        state=base("XDG_STATE_HOME", ".local/state"),
        config=base("XDG_CONFIG_HOME", ".config"),
    )


def read_config(config_directory: Path) -> dict[str, str]:
    """Return the contents of config.toml, {} when there is none. Raises ConfigurationError for other settings."""
    path = config_directory / "config.toml"
    try:
        text = trust.read(path).decode()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from None
    import tomllib  # only who has a file pays for its parser

    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    for key, value in found.items():  # one that is passed over may be the one that says whom to ask
        if key not in _VARIABLES:
            raise ConfigurationError(f"{path}: there is no setting {key!r}", hint=f"there are {', '.join(_VARIABLES)}")
        if not isinstance(value, str):
            raise ConfigurationError(f"{path}: {key} is not text", hint=f'write {key} = "…"')
    return found


def connection_file(where: Directories, environ: Mapping[str, str]) -> tuple[dict[str, Any], str]:
    """Return what a running server of this user wrote, and where; ({}, "") when there is none.

    With TQ_DATA set the copy in the state directory counts only if it speaks of that directory: two servers of one
    user must not be taken for one another.
    """
    found = _read_connection(where.data / "connection.json", named_data(where, environ))
    if found:
        return found, str(where.data / "connection.json")
    found = _read_connection(where.state / "connection.json")
    if environ.get("TQ_DATA") and found.get("data") != str(where.data):
        return {}, ""
    return found, str(where.state / "connection.json") if found else ""


def named_data(where: Directories, environ: Mapping[str, str]) -> Path | None:
    """Return the data directory if the user has named it: root may mean that of another user."""
    return where.data if environ.get("TQ_DATA") else None


def _read_connection(path: Path, named: Path | None = None) -> dict[str, Any]:
    try:
        raw = trust.read(path, named=named)
    except OSError:
        return {}
    import msgspec

    try:
        found = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("url"), str) else {}


def settings(flags: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, Setting]:
    """Return every setting that decides where the server is, with its source. Empty ones are left out.

    `flags` has the values of options given (`url`). Tokens are included: whoever prints must mask them.
    """
    where = directories(environ)
    config = read_config(where.config)
    found: dict[str, Setting] = {}
    for key, variable in _VARIABLES.items():
        if flags.get(key):
            found[key] = Setting(flags[key], f"--{key}")
        elif environ.get(variable):
            found[key] = Setting(environ[variable], variable)
        elif config.get(key):
            found[key] = Setting(config[key], str(where.config / "config.toml"))
    for key in ("url", "token_file", "ca"):
        if key in found and _SECRET.search(found[key].value):  # errors and `tq config` say what these are
            hint = "a join string belongs into TQ_JOIN, a token into TQ_TOKEN, or into a file"
            raise ConfigurationError(f"what {found[key].source} says is, or has in it, a token", hint=hint)
    if "token" not in found and "token_file" in found:
        path, source = found["token_file"]
        found["token"] = Setting(_read_text(path, "token file"), source)
    if "join" in found:
        from tq.net.join import parse_join  # only who was given one pays for its parser

        join = parse_join(found["join"].value)
        found.setdefault("token", Setting(join.token, found["join"].source))
        found.setdefault("ca", Setting(join.ca_sha256, found["join"].source))
    if {"url", "token", "ca"} <= found.keys():
        return found
    connection, path = connection_file(where, environ)
    if connection and ("url" not in found or parse_address(found["url"].value) == parse_address(connection["url"])):
        for key in ("url", "token", "ca"):
            found.setdefault(key, Setting(str(connection.get(key, "")), path))
    return found


def find(flags: Mapping[str, str], environ: Mapping[str, str] | None) -> Target:
    """Return the server to talk to, or raise Unreachable (none is known), Unauthorised or ConfigurationError.

    `environ` None is that of this process: as a default argument `help` would show it, tokens too.
    No address is the default: a join string of another machine would look for its server here.
    """
    environ = os.environ if environ is None else environ
    found = settings(flags, environ)
    if "token" not in found and "url" not in found:
        raise Unreachable("no server is running here", hint="start one with `tq up`, or set TQ_URL and TQ_JOIN")
    if "url" not in found:
        source = found["token"].source
        hint = f"set the address, too, as in TQ_URL=tq://HOST:{DEFAULT_PORT}"
        raise Unreachable(f"no address of a server is known: {source} has none in it", hint=hint)
    url = found["url"]
    host, port = parse_address(url.value)
    if "token" not in found:
        raise Unauthorised(f"no token is known for {url.value}", hint="set TQ_JOIN, or TQ_TOKEN_FILE and TQ_CA")
    if "ca" not in found:
        raise ConfigurationError(f"no CA is known for {url.value}", hint="set TQ_JOIN, or TQ_CA to a file or a SHA-256")
    ca = found["ca"].value.strip()
    is_digest = _SHA256.fullmatch(ca.lower()) is not None
    if not is_digest and "-----BEGIN" not in ca:
        ca = _read_text(ca, "CA")
    return Target(
        host=host,
        port=port,
        token=_token(found["token"]),
        ca_pem="" if is_digest else ca,
        ca_sha256=ca.lower() if is_digest else "",
        state_directory=directories(environ).state,
        sources={"url": url.source, "token": found["token"].source, "ca": found["ca"].source},
        data=_data(directories(environ), environ, (url, found["token"], found["ca"])),
    )


def _token(setting: Setting) -> str:
    token = setting.value.strip()
    if _TOKEN.fullmatch(token) is None:
        hint = "copy it whole: it begins with tqa_, tqs_, tqw_ or tqr_"
        raise Unauthorised(f"what {setting.source} says is not a token of tq", hint=hint)
    return token


def _data(where: Directories, environ: Mapping[str, str], used: Iterable[Setting]) -> Path | None:
    """Return the data directory of the server whose connection file says any of these settings, None if none does."""
    sources = {setting.source for setting in used}
    if sources.isdisjoint(str(place / "connection.json") for place in (where.data, where.state)):
        return None
    connection, path = connection_file(where, environ)
    if path not in sources:
        return None
    return Path(connection.get("data") or Path(path).parent)


def find_again(first: Target, flags: Mapping[str, str], environ: Mapping[str, str]) -> Target:
    """Return where the server that was found first is now, for who stays with it. Raises as `find`; Unreachable, too.

    It stays the server of that data directory: another one of this user may have written the file meanwhile.
    """
    found = find(flags, {**environ, "TQ_DATA": str(first.data)} if first.data else environ)
    if found.data != first.data:
        raise Unreachable(f"no server runs on {first.data}" if first.data else "the server is said to be elsewhere")
    return found


def url_elsewhere(found: Target, name: str) -> str:
    """Return the address that another machine may use, "" if the server is known to listen on this one alone.

    A server here that listens on every address is found by the machine's name; else it is where this program found it.
    """
    if found.host not in LOOPBACK:
        return found.url
    said = _read_connection(found.data / "connection.json", found.data) if found.data else {}
    listen = str(said.get("listen", ""))
    host, _, port = listen.rpartition(":")
    return f"tq://{name}:{port}" if host.strip("[]") in EVERYWHERE and name not in LOOPBACK else ""


def of_directory(data: Path, environ: Mapping[str, str]) -> Target:
    """Return the server that runs on a data directory of this machine, whatever else is set. Raises Unreachable."""
    path = data / "connection.json"
    found = _read_connection(path, data)
    if not found:
        raise Unreachable(f"no server runs on {data}", hint=f"start one: tq server --data {data}")
    host, port = parse_address(found["url"])
    return Target(
        host=host,
        port=port,
        token=str(found.get("token", "")),
        ca_pem=str(found.get("ca", "")),
        ca_sha256="",
        state_directory=directories(environ).state,
        sources=dict.fromkeys(("url", "token", "ca"), str(path)),
        data=data,
    )


def _read_text(path: str, what: str) -> str:
    try:
        data = trust.read(Path(path).expanduser(), bytes_max=_FILE_BYTES_MAX + 1)  # there is no end to a device
        if len(data) > _FILE_BYTES_MAX:
            raise ConfigurationError(f"the {what} {path} has more than {_FILE_BYTES_MAX} bytes: it is none")
        return data.decode("ascii").strip()
    except (OSError, ValueError, RuntimeError) as error:  # no text, a NUL in the path, nobody's home
        is_text = not isinstance(error, UnicodeDecodeError)
        reason = (error.strerror if isinstance(error, OSError) else str(error)) if is_text else "it is not text"
        raise ConfigurationError(f"cannot read the {what} {path}: {reason}") from None
