"""One peer from Hello to Goodbye: who it is, what it may, and which kind of session serves it. No business logic.

Until the token is known to be good, frames are bounded by 4 KiB, and only `GetCA` (once) and `Hello` are understood.
The listener gives a deadline and bounds the number of those who have not said hello. A refusal says why in one
message, never what was wrong with a token.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from tq import __version__, errors, limits
from tq.core.model import ids, tables
from tq.errors import ProtocolError, Unauthorised
from tq.net.link import Link, open_link
from tq.net.listen import Arrival, leaves
from tq.net.log import log
from tq.net.token import is_token, parse_token
from tq.server.sessions.client_session import ClientSession
from tq.server.sessions.roles import check_peer
from tq.server.sessions.session_context import SessionContext
from tq.server.sessions.worker_protocol import WorkerPeer, agree, check_required
from tq.server.sessions.worker_session import WorkerSession
from tq.wire import messages as m
from tq.wire.connection import Connection

_WRONG: Final = "the token is wrong, expired or revoked"
_HINT: Final = "get a token from the server's administrator: tq token create, or tq join"
_NO_DIGEST: Final = bytes(32)


class Guest(NamedTuple):
    """An authenticated peer: its hello, the version chosen, its token, and what came behind the hello.

    `expires_ms` is when its token does (wall time; 0 = never). `predecessors` are those that a worker names and may
    speak for.
    """

    hello: m.Hello
    version: int
    token: str
    role: str
    name: str
    expires_ms: int
    rest: Sequence[m.Message]
    predecessors: tuple[int, ...] = ()


async def attend(arrival: Arrival, context: SessionContext) -> None:
    """Serve one connection until it ends.

    *Resource handling*: closes the connection however it ends.
    *Error handling*: raises what the peer did wrong (TqError), for the listener to log; never a peer's fault as
    anything else. A store that cannot be read is no matter of this peer's: it ends the server.
    """
    async with open_link(arrival.stream, Connection()) as link:
        try:
            await _attend(link, arrival, context)
        except* errors.StoreError as group:
            # It would come and ask again for ever, of a server that only a new start helps.
            context.pipeline.fail(leaves(group)[0])


async def _attend(link: Link, arrival: Arrival, context: SessionContext) -> None:
    try:
        await arrival.hold_back()
        guest = await _greet(link, context)
        if guest is not None:
            _check_share(guest.token, arrival.share_max, context)
    except (errors.Refused, ProtocolError) as error:
        if isinstance(error, Unauthorised):
            arrival.strike()
        link.close(m.Refused(error.code, error.message, error.hint))
        raise
    if guest is None:
        return
    arrival.admit()
    link.connection.frame_bytes_max = limits.frame_bytes_max
    context.registry.connections[guest.role] += 1
    try:
        await _serve(link, guest, context, arrival.peer)
    except ProtocolError as error:
        link.close(m.Refused(error.code, error.message, error.hint))
        raise
    finally:
        context.registry.connections[guest.role] -= 1


async def _greet(link: Link, context: SessionContext) -> Guest | None:
    """Return who the peer is, None if it closed. Raises Refused or ProtocolError."""
    has_asked = False
    async for messages in link:
        for place, message in enumerate(messages):
            if isinstance(message, m.GetCA) and not has_asked:
                has_asked = True
                link.send_nowait(m.CA(context.ca_pem))
            elif isinstance(message, m.Hello):
                return authenticate(message, messages[place + 1 :], context)
            elif isinstance(message, m.Goodbye):
                return None
            else:
                raise ProtocolError(f"{type(message).__name__} came before the hello")
    return None


def authenticate(hello: m.Hello, rest: Sequence[m.Message], context: SessionContext) -> Guest:
    """Return the guest that a hello makes, or raise Refused."""
    version = agree(hello.versions, hello.software)
    check_required(hello.required)
    if hello.role not in ("client", "worker"):
        raise ProtocolError("a peer is a client or a worker")
    if (hello.role == "worker") != (hello.worker > 0):
        raise ProtocolError("a worker, and only a worker, has an id")
    context.gate.check(hello)
    if not hello.token:
        raise Unauthorised("there is no token", hint=_HINT)
    said = parse_token(hello.token)
    record = context.store.get(tables.TOKEN, (said.id,))
    is_good = is_token(hello.token, record.digest if record is not None else _NO_DIGEST)
    if record is None or not is_good or 0 < record.expires_ms <= context.times().wall_ms:
        raise Unauthorised(_WRONG, hint=_HINT)
    check_peer(record.role, hello.role)
    predecessors = _may_speak_for(hello, said.id, context) if hello.role == "worker" else ()
    return Guest(hello, version, said.id, record.role, record.name or said.id, record.expires_ms, rest, predecessors)


def _check_share(token: str, connections_max: int, context: SessionContext) -> None:
    """Raise NotDone if the token has all the connections that one may have: others must find a place, to revoke it."""
    if context.registry.count(token) >= connections_max:
        raise errors.NotDone(
            f"this token has {connections_max} connections, as many as one may have",
            hint="let some of them end, or use several tokens: tq token create, tq join",
        )


def _may_speak_for(hello: m.Hello, token: str, context: SessionContext) -> tuple[int, ...]:
    """Return the predecessors for whom a worker may speak. Raises NotDone if its own id is another token's.

    A worker's id is no secret, and whoever speaks for it ends its attempts: so it belongs to the token that brought it
    first, for as long as that token exists and this server remembers.
    """
    registry = context.registry

    def is_others(worker: int) -> bool:
        owner = registry.owners.get(worker, token)
        return owner != token and context.store.get(tables.TOKEN, (owner,)) is not None

    if is_others(hello.worker):
        raise errors.NotDone("this worker's id belongs to another token", hint="start the worker again")
    registry.owns(hello.worker, token, context.engine.live.workers)
    mine = tuple(worker for worker in hello.predecessors if not is_others(worker))
    if mine != hello.predecessors:
        log("not_its_predecessor", level="warning", worker=ids.worker_id(hello.worker), token=token)
    return mine


async def _serve(link: Link, guest: Guest, context: SessionContext, where: str) -> None:
    hello = guest.hello
    session: WorkerSession | ClientSession
    if hello.role == "worker":
        peer = WorkerPeer(hello.worker, guest.predecessors, context.registry.next_session)
        session = WorkerSession(context, link, peer, guest.name)
        number = peer.session
    else:
        number = context.registry.next_session()
        session = ClientSession(context, link, guest.role, guest.name, guest.token)
    link.send_nowait(
        m.Welcome(guest.version, __version__, context.lineage, context.epoch, number, context.beat_ms, guest.role)
    )
    context.registry.enter(session, guest.token, guest.expires_ms)
    if hello.lineage == context.lineage and hello.epoch > context.epoch:
        log("older_copy", level="warning", epoch=context.epoch, seen=hello.epoch, peer=where, token=guest.token)
    if hello.role == "worker":
        log("worker_connected", worker=ids.worker_id(hello.worker), session=number, peer=where, token=guest.token)
    try:
        await session.run(guest.rest)
    finally:
        context.registry.leave(session, guest.token)
        if hello.role == "worker":
            log("worker_disconnected", worker=ids.worker_id(hello.worker), session=number, reason=link.ended_because)
