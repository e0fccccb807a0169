"""Takes frame after frame from a link until it ends: the reading half of every session.

A frame may have ten thousand messages. They are taken in parts, and between two parts everybody else has a turn; what
is left of a frame when the link is closed here (its token was revoked) is not taken any more.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio

from tq.errors import ProtocolError
from tq.net.link import Link
from tq.wire.messages import Message

part_messages_max: Final = 64


async def receive_all(
    link: Link, rest: Sequence[Message], receive: Callable[[Sequence[Message]], Awaitable[bool]]
) -> ProtocolError | None:
    """Give `rest`, then every frame that comes, to `receive`, until that returns False or the link ends.

    Returns what the peer did wrong instead of raising it: a nursery around this would wrap it in a group.
    """
    try:
        if await _receive_parts(link, rest, receive):
            async for messages in link:
                if not await _receive_parts(link, messages, receive):
                    break
                del messages  # a frame may have 10,000 ids, and the next one may never come
    except ProtocolError as error:
        return error
    return None


async def _receive_parts(
    link: Link, messages: Sequence[Message], receive: Callable[[Sequence[Message]], Awaitable[bool]]
) -> bool:
    """Give all messages of a frame to `receive`. Return whether it wants more."""
    if len(messages) <= part_messages_max:
        return await receive(messages)
    for at in range(0, len(messages), part_messages_max):
        if at:
            await trio.lowlevel.checkpoint()
            if link.is_closed_here:
                return False
        if not await receive(messages[at : at + part_messages_max]):
            return False
    return True
