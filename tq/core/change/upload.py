"""What a client sends before its submit: the pieces of one large input, or the entries of an array.

An upload is not a job and has no id: nothing of it runs before the Submit that names its key. It is idempotent by
offset, so a client that was cut off asks for the next offset and goes on; without its submit it ends by itself. Entries
carry digests of their sender, so that two clients under one key extend one upload only if they send the same.
"""

from msgspec.structs import replace

from tq import limits
from tq.core.change.step import Step
from tq.core.model import tables
from tq.core.model.job import Entries, Upload
from tq.core.model.timers import TimerKind
from tq.core.model.view import BEHIND_NAMES
from tq.core.placement.live import LIVE_UPLOADS, NO_UPLOADS
from tq.core.vocabulary import AddEntries, Uploaded
from tq.core.vocabulary import Upload as UploadPiece
from tq.errors import BadRequest, NotDone, TaskNotFound, TooLarge


def add_piece(step: Step, command: UploadPiece) -> Uploaded:
    """Store one piece of a large input, and answer the next offset. A piece that is known already changes nothing."""
    size = limits.piece_bytes_max
    if len(command.data) > size or command.offset < 0 or command.offset % size:
        raise BadRequest("pieces of an upload begin at multiples of piece_bytes_max and are no longer")
    if command.offset + len(command.data) > limits.stdin_bytes_max:
        raise TooLarge(f"input exceeds stdin_bytes_max, {limits.stdin_bytes_max} bytes", hint="pass a file's name")
    known = _known(step, command.key, is_entries=False)
    if command.offset != known.received or not command.data:
        return Uploaded(known.received)
    known = _numbered(step, known)
    step.overlay.put(tables.BODY, (known.blob, command.offset // size), command.data)
    return _grown(step, command.key, replace(known, received=command.offset + len(command.data)))


def add_entries(step: Step, command: AddEntries) -> Uploaded:
    """Store a run of entries, and answer the number of the next. A run that does not join on changes nothing."""
    if len(command.items) > limits.entries_items_max:
        raise TooLarge(f"a run has at most {limits.entries_items_max} entries (entries_items_max)")
    if sum(map(len, command.items)) > limits.entries_bytes_max:
        raise TooLarge(f"a run of entries exceeds entries_bytes_max, {limits.entries_bytes_max} bytes")
    largest = max(map(len, command.items), default=0)
    if largest > limits.entry_bytes_max:
        raise TooLarge(f"an entry exceeds entry_bytes_max, {limits.entry_bytes_max} bytes", hint="pass a file's name")
    if max(len(command.before), len(command.after)) > limits.digest_bytes_max:
        raise TooLarge(f"a digest has at most {limits.digest_bytes_max} bytes (digest_bytes_max)")
    known = _known(step, command.key, is_entries=True)
    if not known.blob:
        sealed = step.overlay.get(tables.KEY, (command.key,))
        if sealed is not None:
            return Uploaded(0, job=str(sealed.job))
    if command.first != known.received or command.before != known.digest:
        return Uploaded(known.received, known.digest)
    if not command.items:
        is_aging = known.blob and known.expires_ms - step.times.steady_ms < limits.upload_ttl_ms // 2
        return _grown(step, command.key, known) if is_aging else Uploaded(known.received, known.digest)
    if command.first + len(command.items) > limits.array_size_max:
        raise TooLarge(f"an array has at most {limits.array_size_max} members (array_size_max)")
    known = _numbered(step, known)
    at = (known.blob, command.first)
    step.overlay.put(tables.ENTRIES, at, Entries(command.items))
    step.overlay.put(tables.ENTRY_AT, at, True)
    received = command.first + len(command.items)
    grown = replace(known, received=received, largest=max(known.largest, largest), digest=command.after)
    return _grown(step, command.key, grown)


def take(step: Step, key: str, *, is_entries: bool) -> Upload | None:
    """Return the finished upload that a submit names; None if it names none. Raises what is wrong with it."""
    if not key:
        return None
    known = step.overlay.get(tables.UPLOAD, (key,))
    if known is None or not known.received or known.is_entries is not is_entries:
        raise TaskNotFound("the upload of the input is not known (any more)", hint="submit again")
    if known.submitter != step.submitter:
        raise NotDone("the upload of the input belongs to somebody else")
    if _is_expired(step, known):
        raise TaskNotFound("the upload of the input has expired", hint="submit again")
    return known


def expire_uploads(step: Step) -> None:
    """Forget uploads that no submit took within upload_ttl_ms, a bounded part of them; the rest is due again.

    It goes on where the last one ended: else as many as one looks at, if kept alive, would hide all the others.
    """
    now_ms = step.times.steady_ms
    name, first_ms = step.live.uploads_seen
    rows = step.overlay.scan(tables.UPLOAD, (name,), (BEHIND_NAMES,), limits.page_keys_max)
    left = step.bounds.slice
    for (name,), upload in rows:
        if upload.expires_ms > now_ms:
            first_ms = min(first_ms, upload.expires_ms)
        else:
            left -= _forget(step, name, upload, left)
            if left <= 0:
                break
    is_more = left <= 0 or len(rows) >= limits.page_keys_max
    step.overlay.put(LIVE_UPLOADS, (), (name, first_ms) if is_more else NO_UPLOADS)
    if is_more or first_ms < NO_UPLOADS[1]:
        step.set_timer(TimerKind.UPLOADS, now_ms if is_more else first_ms)


def _forget(step: Step, name: str, upload: Upload, rows_max: int) -> int:
    """Delete what was uploaded, as far as so many rows go; return how many went. The upload's own goes last."""
    if not upload.is_entries:
        pieces = -(-upload.received // limits.piece_bytes_max)
        for piece in range(pieces):
            step.overlay.delete(tables.BODY, (upload.blob, piece))
        step.overlay.delete(tables.UPLOAD, (name,))
        return pieces + 1
    runs = step.overlay.scan(tables.ENTRY_AT, (upload.blob,), (upload.blob + 1,), rows_max)
    for key, _ in runs:
        step.overlay.delete(tables.ENTRIES, key)
        step.overlay.delete(tables.ENTRY_AT, key)
    if len(runs) < rows_max:
        step.overlay.delete(tables.UPLOAD, (name,))
    return len(runs) + 1


def _known(step: Step, key: str, *, is_entries: bool) -> Upload:
    if not 1 <= len(key) <= limits.key_chars_max:
        raise BadRequest(f"an upload needs a key of at most {limits.key_chars_max} characters")
    known = step.overlay.get(tables.UPLOAD, (key,))
    if known is None:
        return Upload(step.submitter, 0, 0, 0, is_entries)
    if known.submitter != step.submitter:
        raise NotDone("an upload with this key belongs to somebody else", hint="use another --key")
    if _is_expired(step, known):
        raise NotDone("an upload with this key has expired and is being removed", hint="try again in a moment")
    if known.is_entries is not is_entries:
        raise BadRequest("this upload has the other kind of parts")
    return known


def _is_expired(step: Step, upload: Upload) -> bool:
    """Whether its time is over, so that a part of it may be gone already."""
    return 0 < upload.expires_ms <= step.times.steady_ms


def _numbered(step: Step, upload: Upload) -> Upload:
    if upload.blob:
        return upload
    meta = step.meta()
    blob, meta.next_blob = meta.next_blob, meta.next_blob + 1
    step.set_timer(TimerKind.UPLOADS, step.times.steady_ms + limits.upload_ttl_ms)
    return replace(upload, blob=blob)


def _grown(step: Step, key: str, upload: Upload) -> Uploaded:
    """Put the upload; it lives for another upload_ttl_ms. Its one timer is set anew when it is found alive."""
    due_ms = step.times.steady_ms + limits.upload_ttl_ms
    step.overlay.put(tables.UPLOAD, (key,), replace(upload, expires_ms=due_ms))
    return Uploaded(upload.received, upload.digest)
