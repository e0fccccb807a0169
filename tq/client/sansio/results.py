"""How a task ended, for a program: its value, or the exception that stands for what became of it instead. Pure."""

from typing import Any, Final

from msgspec.structs import replace

from tq.client.sansio.documents import document
from tq.client.sansio.function_call import reason
from tq.client.sansio.validate import shown
from tq.core import vocabulary as v
from tq.core.model.task import State
from tq.errors import ProtocolError, TqError
from tq.wire import plain

ENDED: Final = frozenset(state.word for state in State if state.is_terminal)


class TaskFailed(TqError):
    """A task gave up.

    `id` names it; `cause` is as `tq show` says it: `exception`, `exit`, `signal`, `time_limit`, `lost`, `bad_result`,
    `unknown_function`, … Of an exception `type` is its name (`ValueError`, `package.Error`), `text` its message and
    `traceback` that of the worker; else `type` and `traceback` are "" and `text` is what the worker said, if anything.
    `exit_code` is that of the process, or None; `signal` the one that ended it, or None.
    """

    code = "task_failed"

    def __init__(self, result: v.Result) -> None:
        self._result = result
        raised = _raised(result)
        self.id = result.id
        self.cause = result.cause
        self.type: str = raised.get("type", "")
        self.text: str = raised["message"] if "message" in raised else reason(result.usage)
        self.traceback: str = raised.get("traceback", "")
        ending = document({"code": result.code, "cause": result.cause, "phase": result.phase or "ended", "ended_ms": 1})
        self.exit_code: int | None = ending["exit_code"]
        self.signal: int | None = ending["signal"]
        if self.traceback:
            self.add_note(f"on the worker:\n{self.traceback.rstrip()}")
        super().__init__(f"task {self.id} {self._what()}", hint=f"tq show {self.id}; tq logs {self.id}")

    def __reduce__(self) -> tuple[type["TaskFailed"], tuple[v.Result]]:
        """Pickle as what it was made of: a pool of processes whose worker raises what cannot come back hangs."""
        return type(self), (self._result,)

    def _what(self) -> str:
        if self.cause == "exception":
            return f"raised {self.type}" + (f": {self.text}" if self.text else "")
        if self.cause == "exit":
            return f"exited with {self.exit_code}"
        if self.cause == "signal":
            return f"was ended by signal {self.signal}"
        return f"failed: {self.cause}" + (f": {self.text}" if self.text else "")


class TaskCancelled(TqError):
    """A task ended without having come to an end of its own: `state` is `cancelled`, `skipped` or `expired`."""

    code = "task_cancelled"

    def __init__(self, result: v.Result) -> None:
        self._result = result
        self.id = result.id
        self.state = result.state
        super().__init__(f"task {self.id} was {self.state}", hint=f"tq show {self.id}")

    def __reduce__(self) -> tuple[type["TaskCancelled"], tuple[v.Result]]:
        """As that of TaskFailed."""
        return type(self), (self._result,)


class TaskResult:
    """How one task stands. `state` as `tq show` says it, `attempt` the number of its latest attempt (0 = none yet).

    `number` is the task's in its array: that of the first item of a `map` is 1; 0 for what is not an array's.
    `value` is what it returned, None as well for one that returned nothing; `error` the exception that stands for its
    failure, None if it succeeded or has not ended.
    """

    __slots__ = ("attempt", "error", "id", "number", "state", "value")

    def __init__(self, result: v.Result) -> None:
        self.id = result.id
        self.number = int(result.id.partition(".")[2] or 0)
        self.state = result.state
        self.attempt = result.attempt
        self.value: Any = None
        self.error: TaskFailed | TaskCancelled | None = None
        if result.state == "succeeded":
            try:
                self.value = plain.loads(result.value) if result.value else None
            except ProtocolError:  # of a worker that lies: nobody else's results are to be lost for it
                self.error = TaskFailed(replace(result, cause="bad_result", value=b""))
        elif result.state == "dead":
            self.error = TaskFailed(result)
        elif result.state in ENDED:
            self.error = TaskCancelled(result)

    def __repr__(self) -> str:
        said = shown(self.value) if self.state == "succeeded" and self.error is None else self.error
        return f"<TaskResult {self.id} {self.state}{'' if said is None else f': {said}'}>"

    def get(self) -> Any:
        """Return the value, or raise what stands for the failure."""
        if self.error is not None:
            raise self.error
        return self.value


def _raised(result: v.Result) -> dict[str, str]:
    if result.cause != "exception" or not result.value:
        return {}
    try:
        raised = plain.loads(result.value)
    except ProtocolError:
        return {}
    return {key: str(value) for key, value in raised.items()} if isinstance(raised, dict) else {}
