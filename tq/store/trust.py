"""Whether anybody but this user and root can have put what is at a path, or change it: the rule of ssh's StrictModes.

What names a server, proves who asks or is to be run must be ours. So each directory and each symbolic link on the way,
and what stands at its end,

- belongs to this user or to root. On the way the owner of `/` counts as root, who may be without a number in a user
  namespace; and where root names a directory (TQ_DATA, --data), the owner of that one counts, whose server it is;
- may be written by nobody else, its group included, unless the group has only this user and root in it. A sticky
  directory, as /tmp, may be on the way: what lies in it must be this user's or root's then, links too.

Only what this user or root has made is ever gone through, so nobody else can change the way behind a look. Owns
nothing, changes nothing. Raises ConfigurationError, which names the place; OSError where it cannot look.
"""

import errno
import os
import stat
from collections.abc import Set as AbstractSet
from functools import cache
from pathlib import Path
from typing import Final

from tq.errors import ConfigurationError

_OTHERS: Final = 0o077
_LINKS_MAX: Final = 40  # as the kernel


def check(path: Path, *, named: Path | None = None) -> None:
    """Raise ConfigurationError for what is not ours on the way to a path, or at its end. What is missing is nobody's.

    `named` is the data directory that the path lies in, if the user has named that.
    """
    _walk(path, _users(named), is_end_meant=True)


def check_way(path: Path) -> None:
    """Check the way alone: what is at its end is looked at once it is open, or made anew."""
    _walk(path, _users(None), is_end_meant=False)


def check_opened(fd: int, path: Path) -> None:
    """Check what was opened, whatever `path` leads to by now."""
    _check_one(path, str(path), os.fstat(fd), _users(None))


def check_private(path: Path, what: str, *, more: str = "") -> None:
    """Raise ConfigurationError unless a file or directory is this user's, and closed to everybody else.

    `more` is what else there is to do where others may have read it.
    """
    found, user = path.stat(), os.geteuid()
    if found.st_uid != user:
        raise ConfigurationError(
            f"the {what} {path} belongs to user {_name(found.st_uid)}, not to this user ({user})",
            hint=f"run this as its owner; or take another place, or give this one to this user: chown {user} {path}",
        )
    if found.st_mode & _OTHERS:
        mode = stat.S_IMODE(found.st_mode)
        raise ConfigurationError(
            f"the {what} {path} is open to other users (mode {mode:04o})",
            hint=f"close it: chmod {mode & ~_OTHERS | 0o600:o} {path}{more}",
        )


def read(path: Path, *, named: Path | None = None, bytes_max: int = -1) -> bytes:
    """Return what is in a file, once it is checked; at most so many bytes. Raises OSError, also where there is none."""
    path.lstat()  # where nothing is, nobody is told of the way to it
    users = _users(named)
    is_handed = _walk(path, users, is_end_meant=True)
    with path.open("rb") as file:
        if not is_handed:
            _check_one(path, str(path), os.fstat(file.fileno()), users)
        return file.read(bytes_max)


def _users(named: Path | None) -> AbstractSet[int]:
    """Return whose things count: this user's, root's, and for root those of whose directory was named."""
    users = {0, os.geteuid()}
    if named is not None and users == {0}:
        try:
            users.add(named.stat().st_uid)
        except OSError:
            pass
    return users


def _walk(path: Path, users: AbstractSet[int], *, is_end_meant: bool) -> bool:
    """Go to a path as the kernel does, and check each place. Return whether it is a descriptor of this process."""
    top = os.lstat("/")
    on_the_way = users | {top.st_uid}
    at, left, links = "/", _names(str(path.absolute())), 0
    shared = {"/"} if _check_one(path, "/", top, on_the_way, may_be_sticky=True) else set()
    while left:
        name = left.pop()
        if name == "..":
            at = os.path.dirname(at)  # noqa: PTH120 - a start of `tq` makes no paths here
            continue
        place = f"{at}/{name}" if at != "/" else f"/{name}"
        try:
            found = os.lstat(place)
        except (FileNotFoundError, NotADirectoryError):
            return False
        is_link = stat.S_ISLNK(found.st_mode)
        is_end = not left and not is_link
        if is_end and not is_end_meant:
            return False
        owners = {0, os.geteuid()} if at in shared else users if is_end else on_the_way
        if _check_one(path, place, found, owners, may_be_sticky=not is_end):
            shared.add(place)
        if not is_link:
            at = place
            continue
        if at.startswith("/proc/") and at.endswith("/fd"):
            return True  # /dev/stdin, <(…): whoever started this program has opened it
        links += 1
        if links > _LINKS_MAX:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        target = os.readlink(place)  # noqa: PTH115
        at = "/" if target.startswith("/") else at
        left += _names(target)
    return False


def _names(path: str) -> list[str]:
    """Return what a path goes through, the last first."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def _check_one(
    path: Path, place: str, found: os.stat_result, owners: AbstractSet[int], *, may_be_sticky: bool = False
) -> bool:
    """Check one place on the way to `path`. Return whether others may make names in it, which it may be asked for."""
    whose = "" if place == str(path) else f"{path} cannot be trusted: "
    if found.st_uid not in owners:
        user = os.geteuid()
        raise ConfigurationError(
            f"{whose}{place} belongs to user {_name(found.st_uid)}, "
            + (f"neither to this one ({user}) nor to root" if user else "not to root"),
            hint="keep yours where nobody else can put it: TQ_DATA, XDG_STATE_HOME and XDG_CONFIG_HOME say where"
            + ("" if user else "; sudo -H takes root's own home"),
        )
    if not _may_others_write(place, found):
        return False
    if may_be_sticky and found.st_mode & stat.S_ISVTX and stat.S_ISDIR(found.st_mode):
        return True
    as_root = "" if os.geteuid() in {0, found.st_uid} else ", as root"
    raise ConfigurationError(
        f"{whose}other users may write to {place} (mode {stat.S_IMODE(found.st_mode):04o})",
        hint=f"see that nobody has put or changed something there; then{as_root}: chmod go-w {place}",
    )


def _may_others_write(place: str, found: os.stat_result) -> bool:
    mode = found.st_mode
    if not mode & 0o022 or stat.S_ISLNK(mode) or stat.S_ISCHR(mode):  # nothing stays in a device
        return False
    return bool(mode & 0o002) or not _is_own_group(found.st_gid, os.geteuid()) or _has_more_writers(place)


@cache
def _is_own_group(group: int, user: int) -> bool:
    """Whether only this user and root are in a group, as in a user's private group, which a umask of 002 goes with.

    One without a name, of which this process is, is a container's: there are no others that could be in it.
    """
    import grp  # these ask the directory of a company, perhaps: only where a group may write
    import pwd

    members = {one.pw_uid for one in pwd.getpwall() if one.pw_gid == group}
    try:
        names = grp.getgrgid(group).gr_mem
    except KeyError:
        return members <= {0, user} and group in {os.getegid(), *os.getgroups()}
    try:
        members |= {pwd.getpwnam(name).pw_uid for name in names}
    except KeyError:  # nothing is known of one of them
        return False
    return bool(members) and members <= {0, user}


def _has_more_writers(place: str) -> bool:
    """Whether an access control list lets others in; the bits of the group are those of its mask then."""
    try:
        return bool(os.getxattr(place, "system.posix_acl_access"))
    except OSError:  # there is none
        return False


def _name(uid: int) -> str:
    import pwd

    try:
        return f"{uid} ({pwd.getpwuid(uid).pw_name})"
    except KeyError:
        return str(uid)
