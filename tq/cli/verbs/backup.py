"""`tq backup` and `tq restore`: the whole store as one file, and back into a fresh directory.

A backup comes over the connection, so it can be taken from anywhere. It is written beside FILE, and takes its name only
when it is whole and on the disk.
"""

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tq.cli.frame.context import Context, say
from tq.cli.frame.verb import Verb
from tq.client.sansio.documents import expect
from tq.errors import ConfigurationError, ProtocolError, Unreachable
from tq.limits import MIB

if TYPE_CHECKING:
    from typing import BinaryIO

    from tq.client.drivers.blocking import Client
    from tq.core.vocabulary import BackupPart

_TRIES_MAX = 5  # each begins with the first byte again
File = Annotated[str, typer.Argument(metavar="FILE", help="The backup", show_default=False)]


def backup(ctx: typer.Context, file: File) -> None:
    """Write the whole store of the running server into FILE: jobs, output, tokens, the server's identity.

    Nothing stops meanwhile. FILE appears when it is whole; one of that name is replaced. It is a tar archive, 0600, and
    as secret as the data directory: who has it can be the server, and read what tasks were given.
    """
    from tq.cli.showing import output, present

    context: Context = ctx.obj
    target = Path(os.path.abspath(os.path.expanduser(file)))  # noqa: PTH100, PTH111 - so that a link is seen
    if file == "-":
        raise ConfigurationError("a backup goes into a file, not to stdout", hint="name one; ./- is a file, too")
    if target.is_symlink() or (target.exists() and not target.is_file()):  # as /dev/stdout is, which stays what it is
        raise ConfigurationError(f"{file} is not a plain file", hint="name a file in a directory of yours")
    scratch = target.with_name(f".{target.name}.part")
    try:
        with _created(scratch) as sink:
            try:
                with context.client() as client:
                    last = _receive(context, client, sink)
                scratch.replace(target)
            except BaseException:
                scratch.unlink()
                raise
        from tq.store.files import sync_directory

        sync_directory(target.parent)
    except OSError as error:
        raise ConfigurationError(
            f"the backup {file} cannot be written: {error.strerror}", hint="choose a directory of yours with room"
        ) from error
    if context.is_json:
        output.print_json({"file": str(target), "size_bytes": last.size_bytes, "sequence": last.sequence})
    else:
        context.talk(f"tq: {file} has {present.size(last.size_bytes)}: the store up to commit {last.sequence}")


def restore(
    ctx: typer.Context,
    file: File,
    data: Annotated[
        str, typer.Option("--data", metavar="DIR", help="A fresh directory; TQ_DATA, or ~/.local/share/tq",
                          show_default=False)
    ] = "",
    data_on_network: Annotated[
        bool, typer.Option("--data-on-network", help="Allow a data directory on a network file system")
    ] = False,
) -> None:  # fmt: skip
    """Make a data directory of a backup, for `tq server` to serve.

    The directory must be missing or empty, and the backup whole: else nothing is written. The new store is another one
    than the old: workers that still hold work of the old one stop it, and keep its results aside.
    """
    import secrets

    from tq.cli.showing import output
    from tq.cli.verbs.server import directories
    from tq.store.restore import restore as restore_store

    context: Context = ctx.obj
    directory, path = directories(context.environ, data).data, Path(file).expanduser()
    try:
        doubt = _doubt(path)
        head = restore_store(path, directory, secrets.randbits(63) | 1, allow_network=data_on_network)
    except OSError as error:
        raise ConfigurationError(
            f"the backup cannot be restored into {directory}: {error.strerror}", hint="see to that disk, and try again"
        ) from error
    if context.is_json:
        output.print_json({"data": str(directory), "sequence": head.sequence, "version": head.version})
    else:
        context.talk(f"tq: {directory} is the store up to commit {head.sequence}, as tq {head.version} backed it up")
        context.talk(f"tq: to serve it: tq server --data {directory}")
    if doubt:
        say(
            f"tq: warning: {doubt}\n"
            "hint: whoever had it may have its keys and tokens, or have put others in: serve it only if you trust them"
        )


def _doubt(path: Path) -> str:
    """Return why others may have had or changed a backup, "" if none could. It may be meant, so nothing is refused."""
    from tq.store import trust

    try:
        trust.check(path)
    except ConfigurationError as error:
        return error.message
    except OSError:  # the restore says it better
        return ""
    return ""


def _created(scratch: Path) -> "BinaryIO":
    """Open the empty file that becomes the backup, for this process alone. One that a killed process left is taken.

    Who may write to the directory could put another file in its place: that one would be restored, with its identity.
    """
    import fcntl

    from tq.store import trust

    trust.check(scratch)
    sink = os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb")
    try:
        fcntl.flock(sink, fcntl.LOCK_EX | fcntl.LOCK_NB)
        trust.check_opened(sink.fileno(), scratch)
        _make_private(sink)
        sink.truncate()
    except BlockingIOError:
        sink.close()
        raise ConfigurationError(
            f"another backup is being written to {scratch}", hint="let that one end, or choose another name"
        ) from None
    except BaseException:
        sink.close()
        raise
    return sink


def _make_private(sink: "BinaryIO") -> None:
    if os.fstat(sink.fileno()).st_nlink != 1:  # it may be any of our files, put there by who may write to the directory
        raise ConfigurationError("the file has another name, too", hint="remove it, or choose another directory")
    os.fchmod(sink.fileno(), 0o600)


def _check_room(sink: "BinaryIO", size_bytes: int) -> None:
    """Raise OSError where the disk cannot take it all: filled to its last byte, it may be the server's own."""
    disk = os.fstatvfs(sink.fileno())
    if disk.f_blocks and disk.f_bavail * disk.f_frsize < size_bytes:  # some file systems have no figures
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _receive(context: Context, client: "Client", sink: "BinaryIO") -> "BackupPart":
    """Write all parts, durably, and return the last. After a lost connection the server makes another backup."""
    from tq.cli.showing.output import Ticker
    from tq.cli.showing.present import size
    from tq.cli.showing.waiting import bar
    from tq.core import vocabulary as v

    ticker = Ticker(is_quiet=context.quiet)
    received, tries, part = 0, 0, None
    try:
        for answer in client.subscribe(v.Backup):
            part = expect(v.BackupPart, answer)
            if not part.offset:
                tries += 1
                if tries > _TRIES_MAX:
                    raise Unreachable(f"the connection was lost {_TRIES_MAX} times in the middle of the backup")
                received = sink.seek(0)
                sink.truncate()
                _check_room(sink, part.size_bytes)
            if part.offset != received:
                raise ProtocolError("a part of the backup is missing")
            sink.write(part.data)
            received += len(part.data)
            if ticker.is_shown and (part.offset % MIB < len(part.data) or received == part.size_bytes):
                ticker.draw(
                    bar(received, part.size_bytes, f"{size(received)} of {size(part.size_bytes)}", ticker.columns)
                )
    finally:
        ticker.clear()
    if part is None or received != part.size_bytes:
        raise ProtocolError("the server ended the backup before its end")
    sink.flush()
    os.fsync(sink.fileno())
    return part


VERBS = {
    "backup": Verb(
        backup, ("tq backup /var/backups/tq.tar", "tq backup -q nightly.tar --url tq://tq.example.org:7878")
    ),
    "restore": Verb(restore, ("tq restore /var/backups/tq.tar --data /srv/tq",)),
}
