"""Which function carries out each command, and which answers each question."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from tq.core.bulk import act
from tq.core.bulk.progress import Verb
from tq.core.bulk.verbs import VERBS
from tq.core.change import idempotency, upload
from tq.core.change.step import Step
from tq.core.engine import control, join, report, submit
from tq.core.model.view import View
from tq.core.placement.live import Live
from tq.core.read import overview, query, waits
from tq.core.read.dead_letters import dead_letters
from tq.core.vocabulary import (
    AddEntries,
    Answer,
    CreateToken,
    DeadLetters,
    Drain,
    Get,
    GetRequest,
    GetResults,
    Handback,
    InputDamaged,
    Join,
    List,
    Queues,
    Recover,
    Report,
    RevokeToken,
    Selected,
    SetQueue,
    Started,
    Status,
    Submit,
    Tokens,
    Upload,
    Wait,
    WorkerDrains,
    WorkerLost,
    Workers,
    WorkerSilent,
)


def _act(verb: Verb, step: Step, command: Selected) -> Answer:
    return act.act(step, verb, command)


CHANGES: Final[dict[type, Callable[[Step, Any], Answer | None]]] = {
    Submit: submit.submit,
    Upload: upload.add_piece,
    AddEntries: upload.add_entries,
    Drain: control.drain,
    SetQueue: control.set_queue,
    CreateToken: control.create_token,
    RevokeToken: control.revoke_token,
    Join: join.join,
    WorkerDrains: join.worker_drains,
    Started: report.started,
    Report: report.report,
    Handback: report.handback,
    WorkerLost: report.worker_lost,
    WorkerSilent: join.worker_silent,
    InputDamaged: control.input_damaged,
    Recover: control.recover,
    **{kind: partial(_act, verb) for kind, verb in VERBS.items()},
}

READS: Final[dict[type, Callable[[View, Live, Any], Answer]]] = {
    Get: query.get,
    GetRequest: idempotency.get_request,
    GetResults: query.results,
    List: query.list_page,
    DeadLetters: dead_letters,
    Wait: waits.wait,
    Workers: overview.workers,
    Tokens: overview.tokens,
    Status: overview.status,
    Queues: overview.queues,
}
