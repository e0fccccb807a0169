"""Takes frame after frame from a link until it ends: the reading half of every session."""

from collections.abc import Awaitable, Callable, Sequence

from tq.errors import ProtocolError
from tq.net.link import Link
from tq.wire.messages import Message


async def receive_all(
    link: Link, rest: Sequence[Message], receive: Callable[[Sequence[Message]], Awaitable[bool]]
) -> ProtocolError | None:
    """Give `rest`, then every frame that comes, to `receive`, until that returns False or the link ends.

    Returns what the peer did wrong instead of raising it: a nursery around this would wrap it in a group.
    """
    try:
        if await receive(rest):
            async for messages in link:
                if not await receive(messages):
                    break
    except ProtocolError as error:
        return error
    return None
