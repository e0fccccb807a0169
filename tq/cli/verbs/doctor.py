"""`tq doctor`: looks at everything that makes trouble, and says for each what to do about it.

Every check is a line: ok, warn or fail. What cannot be seen from here (the disk of a server elsewhere, the user of a
worker elsewhere) is asked of the server or left out. It changes nothing.
"""

import os
import socket
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import typer

from tq import __version__, limits
from tq.cli.frame.context import Context
from tq.cli.frame.verb import Verb
from tq.cli.showing.pages import every
from tq.cli.showing.present import counted
from tq.client.sansio.documents import expect
from tq.errors import ConfigurationError, TqError
from tq.net.address import LOOPBACK

if TYPE_CHECKING:
    from tq.client.drivers.blocking import Client

_SKEW_WARN_S: Final = 2.0
_SKEW_FAIL_S: Final = 60.0
_EXPIRES_WARN_S: Final = 14 * 86_400
_PEERS_MIN: Final = 100
_MORE_FILES: Final = "raise it: ulimit -Hn, or LimitNOFILE= of a systemd unit"
_STUCK_MAX: Final = 5
_LOOSE_MAX: Final = 20


class Finding(NamedTuple):
    """One line: `status` is ok, warn or fail."""

    check: str
    status: str
    text: str
    hint: str = ""


class Seen(NamedTuple):
    """What the server said: its own story, what is stuck, its store and workers, and this machine's time at that."""

    story: dict[str, Any]
    stuck: list[dict[str, Any]]
    store: dict[str, Any]
    workers: tuple[dict[str, Any], ...]
    asked_s: float
    answered_s: float


def doctor(ctx: typer.Context) -> None:
    """Check the server, its disk and workers, and this machine; exits with 1 when something is wrong.

    Each line is ok, warn or fail. A warning says what may go wrong later, and does not change the exit status.
    """
    context: Context = ctx.obj
    found: list[Finding] = []
    seen: Seen | None = None
    try:
        with context.client() as client:
            seen = _look(client)
            found.append(_reached(client, seen))
    except TqError as error:
        found.append(Finding("server", "fail", error.message, error.hint))
    if seen is not None:
        for check in (_versions, _clock, _disk, _certificate, _errors, _workers, _stuck):
            found.extend(check(seen))
    found.extend(_directory(_data(context, seen), seen))
    found.extend(one for one in _state(context) if one.text not in {other.text for other in found})
    if seen is not None:
        found.extend(_token_readers(_data(context, seen), seen))
    found.extend(_open_secrets(context))
    found.append(_open_files())
    found.extend(_abandoned())
    _print(context, found)
    raise typer.Exit(1 if any(finding.status == "fail" for finding in found) else 0)


def _look(client: "Client") -> Seen:
    from tq.core import vocabulary as v

    client.connect()
    asked_s = time.time()
    status = expect(v.Document, client.ask(v.Status()))
    answered_s = time.time()
    store = expect(v.Document, client.ask(v.StoreStatistics()))
    story, stuck = status.value.get("server") or {}, status.value.get("stuck") or []
    workers = tuple(chain.from_iterable(every(client, v.Workers)))
    return Seen(story, stuck, store.value, workers, asked_s, answered_s)


def _reached(client: "Client", seen: Seen) -> Finding:
    took_ms = (seen.answered_s - seen.asked_s) * 1_000
    url = seen.story.get("url", "")
    return Finding("server", "ok", f"{url} answers in {took_ms:.1f} ms; this token's role is {client.role}")


def _versions(seen: Seen) -> Iterator[Finding]:
    server = str(seen.story.get("version", "?"))
    who: dict[str, list[str]] = {__version__: ["this program"]}
    for worker in seen.workers:
        who.setdefault(str(worker.get("software", "")), []).append(_called(worker))
    others = [f"{_first(who[other])} ({other})" for other in sorted(who) if other and other != server]
    if others:
        yield Finding(
            "versions", "warn", f"the server is tq {server}; others are not: {', '.join(others)}",
            "bring all to one version, the server first",
        )  # fmt: skip
    else:
        yield Finding("versions", "ok", f"everybody is tq {server}")


def _clock(seen: Seen) -> Iterator[Finding]:
    started_ms, uptime_s = seen.story.get("started_ms"), seen.story.get("uptime_s")
    if not started_ms or uptime_s is None:
        return
    # A server of before `now_ms` takes its uptime from its wall clock.
    there_s = seen.story.get("now_ms", started_ms + uptime_s * 1_000) / 1_000
    skew_s = max(seen.asked_s - there_s, there_s - seen.answered_s, 0.0)
    if skew_s < _SKEW_WARN_S:
        yield Finding("clock", "ok", f"the server's clock and this machine's agree within {max(skew_s, 0.1):.1f} s")
        return
    status = "fail" if skew_s >= _SKEW_FAIL_S else "warn"
    yield Finding("clock", status, f"the server's clock is {skew_s:.0f} s off this machine's",
                  "set both by NTP: certificates and tokens have times")  # fmt: skip


def _disk(seen: Seen) -> Iterator[Finding]:
    from tq.cli.showing import present

    free, low = seen.store.get("free_bytes"), (seen.store.get("settings") or {}).get("low_water_bytes")
    if free is None or not low:
        return
    text = f"{present.size(free)} free on the server's disk; below {present.size(low)} it takes no new work"
    room = seen.store.get("room", "normal")
    if room != "normal":
        yield Finding("disk", "fail", text, "free some space, or forget ended jobs: tq forget --state succeeded")
    elif free < 2 * low:
        yield Finding("disk", "warn", text, "free some space soon")
    else:
        yield Finding("disk", "ok", text)


def _certificate(seen: Seen) -> Iterator[Finding]:
    text = str(seen.story.get("certificate_expires") or "")
    try:
        expires = datetime.fromisoformat(text)
    except ValueError:
        return
    left_s = (expires if expires.tzinfo else expires.replace(tzinfo=UTC)).timestamp() - seen.answered_s
    says = f"the server's certificate is valid until {text[:10]}"
    if left_s < _EXPIRES_WARN_S:
        status = "fail" if left_s < 0 else "warn"
        yield Finding("certificate", status, says, "start the server again: it makes a new one")
    else:
        yield Finding("certificate", "ok", says)


def _errors(seen: Seen) -> Iterator[Finding]:
    count = seen.story.get("internal_errors") or 0
    if count:
        yield Finding("errors", "warn", f"the server met {counted(count, 'internal error')} since its start",
                      "look into its log, and report them")  # fmt: skip
    damages = seen.story.get("damages") or 0
    if damages:
        says = f"the server met damage of its store {counted(damages, 'time')} since its start"
        yield Finding("damage", "fail", says,
                      "look into its log and at its disk; then, with the server stopped: tq store check")  # fmt: skip


def _workers(seen: Seen) -> Iterator[Finding]:
    up = [worker for worker in seen.workers if worker.get("slots")]  # one that is owed its return offers nothing
    if not up:
        yield Finding("workers", "warn", "no worker is connected: nothing runs", "start one: tq worker")
        return
    slots = sum(int(worker.get("slots") or 0) for worker in up)
    if all(worker.get("state") == "draining" for worker in up):
        yield Finding("workers", "warn", "every worker that is connected drains: nothing new is started",
                      "let one go on: tq undrain WORKER; or start one: tq worker")  # fmt: skip
    else:
        idle = Counter(str(worker.get("state")) for worker in up if worker.get("state") in _TAKE_NOTHING)
        but = "".join(f", {count} of them {state}" for state, count in idle.items())
        yield Finding("workers", "ok", f"{len(up)} connected with {counted(slots, 'slot')}{but}")
    yield from _troubles(up)
    levels = sorted({str(worker.get("level") or "?") for worker in up})
    yield Finding("containment", "ok", f"what a task starts is held by level {', '.join(levels)}")


_NAMED_MAX: Final = 5
_ROOM_MIN: Final = 20
_TAKE_NOTHING: Final = ("draining", "suspect")
_TROUBLES = {
    "suspect": ("cut off, or not heard for a heartbeat or more", "is their network in order, and do they run?"),
    "degraded": ("hold processes that they cannot kill", "look for processes in state D there; a restart helps"),
    "quarantined": ("could not start what they were given", "see their logs too; then: tq undrain WORKER"),
}


def _troubles(workers: list[dict[str, Any]]) -> Iterator[Finding]:
    """Name the connected workers that are no good."""
    for state, (what, hint) in _TROUBLES.items():
        named = [(_called(worker), worker.get("trouble")) for worker in workers if worker.get("state") == state]
        names = [f"{name} ({trouble})" if trouble else name for name, trouble in named]
        if names:
            yield Finding(f"{state} workers", "warn", f"{_first(names)}: {what}", hint)


def _called(worker: dict[str, Any]) -> str:
    return str(worker.get("host") or worker.get("id"))


def _first(names: list[str]) -> str:
    """Return the first few names, and how many others there are."""
    more = f" and {len(names) - _NAMED_MAX} more" if len(names) > _NAMED_MAX else ""
    return ", ".join(names[:_NAMED_MAX]) + more


def _stuck(seen: Seen) -> Iterator[Finding]:
    """Name what waits for somebody to do something: one line for each queue."""
    for stuck in seen.stuck[:_STUCK_MAX]:
        text = f"{counted(stuck.get('tasks') or 0, 'task does', 'tasks do')} not get on: {stuck.get('reason')}"
        yield Finding(f"queue {stuck.get('queue')}", "warn", text, "see them: tq ls; tq show ID")


def _data(context: Context, seen: Seen | None) -> Path | None:
    """Return the data directory, if it is on this machine."""
    from tq.client import target

    if seen is not None:
        data = Path(str(seen.story.get("data") or ""))
        host, _, _ = str(seen.story.get("url", "")).removeprefix("tq://").rpartition(":")
        is_here = host.strip("[]") in {*LOOPBACK, socket.gethostname()}
        return data if is_here and data.is_absolute() and _is_directory(data) else None
    data = target.directories(context.environ).data
    return data if _is_directory(data) else None


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except PermissionError:  # another user's, somewhere in what is closed to us
        return False


def _directory(data: Path | None, seen: Seen | None) -> Iterator[Finding]:
    from tq.store import directory

    if data is None or (seen is not None and data.stat().st_uid != os.geteuid()):
        return  # of who serves it, and has looked at it
    try:
        directory.check_owner(data, may_close=False)
    except ConfigurationError as error:
        yield Finding("data", "fail", error.message, error.hint)
    else:
        yield Finding("data", "ok", f"{data} is this user's alone, on {directory.file_system(data) or 'a local disk'}")


def _state(context: Context) -> Iterator[Finding]:
    """Say why tq refuses what is in this user's state directory or configuration, before a server or worker does."""
    from tq.client import target
    from tq.store import trust

    where = target.directories(context.environ)
    for name, path in (("state", where.state / "connection.json"), ("config", where.config / "config.toml")):
        try:
            trust.check(path)
        except OSError:  # nothing that this user could use
            continue
        except ConfigurationError as error:
            yield Finding(name, "fail", error.message, error.hint)


def _token_readers(data: Path | None, seen: Seen) -> Iterator[Finding]:
    """Say when tasks run as the user who may read the admin token: whoever may submit is then an admin."""
    if data is None:
        return
    owner = data.stat().st_uid
    here = socket.gethostname()
    for worker in seen.workers:
        try:
            uid = Path(f"/proc/{worker['pid']}").stat().st_uid
        except (OSError, KeyError):
            continue
        if worker.get("host") == here and uid in {owner, 0}:
            yield Finding(
                "users", "warn", f"tasks run as uid {uid}, who can read the admin token in {data}",
                "fine for yourself; where others may submit, give workers a user of their own",
            )  # fmt: skip
            return


def _open_secrets(context: Context) -> Iterator[Finding]:
    """Say when others may read a file that this user's token comes from."""
    from tq.client import target

    directory = target.directories(context.environ).config
    try:
        settings = target.settings({"url": context.url}, context.environ)
        config = target.read_config(directory)
    except TqError:  # was said: no server is reached by these
        return
    files = [directory / "config.toml"] if config.get("token") or config.get("join") else []
    if "token_file" in settings:
        files.append(Path(settings["token_file"].value))
    for path in files:
        try:
            mode = path.expanduser().stat().st_mode
        except (OSError, RuntimeError):  # nothing is read from there: a token is set otherwise
            continue
        if mode & 0o077:
            yield Finding("secrets", "warn", f"others may read {path}, which has a token in it",
                          f"chmod 600 {path}; if somebody may have read it: tq token revoke")  # fmt: skip


def _open_files() -> Finding:
    from tq.store import process_limits

    files = process_limits.hard()
    if files < process_limits.server_files_min:
        return Finding("open files", "warn", f"ulimit -Hn is {files}: no server starts here", _MORE_FILES)
    peers = process_limits.share(files).connections
    if peers >= limits.connections_max:
        return Finding("open files", "ok", "ulimit -n is enough for every connection that a server takes")
    text = f"ulimit -Hn is {files}: a server here takes {counted(peers, 'connection')}"
    return (
        Finding("open files", "ok", text) if peers >= _PEERS_MIN else Finding("open files", "warn", text, _MORE_FILES)
    )


def _abandoned() -> Iterator[Finding]:
    """Name what dead workers have left alive on this machine, where nobody has come to their directories since."""
    from tq.launcher import cgroups, containment

    left = cgroups.abandoned()
    again = "start a worker on its state directory, or end them"
    for path, pids in left.items():
        what = counted(len(pids), "process of a dead worker lives", "processes of a dead worker live")
        yield Finding("leftovers", "warn", f"{what} on in {path}",
                      f"{again}: echo 1 > {path}/cgroup.kill")  # fmt: skip
    held = {pid for pids in left.values() for pid in pids}
    if loose := [str(pid) for pid in containment.abandoned() if pid not in held]:
        what = counted(len(loose), "process of a task lives", "processes of tasks live")
        yield Finding("leftovers", "warn", f"{what} on without a worker",
                      f"{again}: kill -KILL {' '.join(loose[:_LOOSE_MAX])}")  # fmt: skip


def _print(context: Context, found: list[Finding]) -> None:
    from tq.cli.showing import output

    if context.is_json:
        items = [{"id": one.check, "status": one.status, "text": one.text, "hint": one.hint or None} for one in found]
        output.print_items(context, items, "", ())
        return
    wide = max(len(one.check) for one in found)
    room = output.terminal_width() - wide - 8
    for one in found:
        if context.format == "id" and one.status == "ok":
            continue
        lines = _broken(one.text, room) + (_broken(f"hint: {one.hint}", room) if one.hint else [])
        output.print_line(f"{one.status:4}  {one.check:{wide}}  {lines[0]}")
        for line in lines[1:]:
            output.print_line(f"{'':4}  {'':{wide}}  {line}")


def _broken(text: str, room: int) -> list[str]:
    """Return a text in lines that a terminal has room for, one line where there is none, or next to none."""
    from textwrap import wrap

    return wrap(text, room, break_long_words=False, break_on_hyphens=False) if room >= _ROOM_MIN else [text]


VERBS = {"doctor": Verb(doctor, ("tq doctor", "tq doctor -o json"))}
