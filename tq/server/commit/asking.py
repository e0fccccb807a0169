"""A question of the server's own, which goes through the commit loop as everybody's does."""

import trio

from tq.core.vocabulary import Answer
from tq.errors import TqError
from tq.server.commit.intake import Inlet, Request


async def ask(inlet: Inlet, request: Request) -> Answer:
    """Put a request, and return its answer once all that it could have seen is on disk. A refusal raises its error."""
    answers: list[Answer | TqError] = []
    got = trio.Event()

    def reply(answer: Answer | TqError) -> None:
        answers.append(answer)
        got.set()

    inlet.put([Request(request.command, request.submitter, reply)])
    await got.wait()
    if isinstance(answers[0], TqError):
        raise answers[0]
    return answers[0]
