"""What the core understands and says: commands in, answers and effects out.

It owns the form of each of them, which is also their form on the wire. It never says what a command does.

A command asks (`Submit`, `Cancel`) or tells of a fact (`WorkerLost`). The engine gives one answer to a command of a
client, and effects: things to do once the commit that decided them is on disk. All are frozen array-like structs, so
they go over the wire as they are (wire/messages.py wraps them); new fields go at the end, with defaults.
Ids are text (`42`, `43.7`) where people give them, and `AttemptRef`s between server and worker. Times in ms.
"""

from tq.core.model.job import Demand
from tq.core.vocabulary.answers import (
    Acted,
    BackupPart,
    Chunk,
    Document,
    Done,
    Joined,
    LogsEnd,
    Outcome,
    Page,
    Recovered,
    Requested,
    Result,
    Results,
    Submitted,
    Uploaded,
    Waited,
)
from tq.core.vocabulary.commands import (
    AddEntries,
    Backup,
    Cancel,
    CreateToken,
    DeadLetters,
    Drain,
    Forget,
    Get,
    GetRequest,
    GetResults,
    Hold,
    List,
    Logs,
    Purge,
    Queues,
    Release,
    Requeue,
    Retry,
    RevokeToken,
    Selected,
    SetPriority,
    SetQueue,
    SetThrottle,
    Status,
    StoreStatistics,
    Submit,
    Tokens,
    Upload,
    Wait,
    Where,
    Workers,
)
from tq.core.vocabulary.effects import (
    Acknowledge,
    Assignment,
    DrainAsked,
    Recall,
    Start,
    Stop,
    Supersede,
    TaskChanged,
    TokenRevoked,
)
from tq.core.vocabulary.words import AttemptRef, Times
from tq.core.vocabulary.worker_commands import (
    Capacity,
    Dispatch,
    End,
    Handback,
    Held,
    InputDamaged,
    Join,
    Recover,
    Report,
    Retain,
    Started,
    Tick,
    WorkerDrains,
    WorkerLost,
    WorkerSilent,
)

__all__ = [
    "Acknowledge",
    "Acted",
    "AddEntries",
    "Answer",
    "Assignment",
    "AttemptRef",
    "Backup",
    "BackupPart",
    "Cancel",
    "Capacity",
    "Chunk",
    "ClientCommand",
    "Command",
    "CreateToken",
    "DeadLetters",
    "Demand",
    "Dispatch",
    "Document",
    "Done",
    "Drain",
    "DrainAsked",
    "Effect",
    "End",
    "Forget",
    "Get",
    "GetRequest",
    "GetResults",
    "Handback",
    "Held",
    "Hold",
    "InputDamaged",
    "Join",
    "Joined",
    "List",
    "Logs",
    "LogsEnd",
    "Outcome",
    "Page",
    "Purge",
    "Queues",
    "Read",
    "Recall",
    "Recover",
    "Recovered",
    "Release",
    "Report",
    "Requested",
    "Requeue",
    "Result",
    "Results",
    "Retain",
    "Retry",
    "RevokeToken",
    "Selected",
    "ServerCommand",
    "SetPriority",
    "SetQueue",
    "SetThrottle",
    "Start",
    "Started",
    "Status",
    "Stop",
    "StoreStatistics",
    "Submit",
    "Submitted",
    "Supersede",
    "TaskChanged",
    "Tick",
    "Times",
    "TokenRevoked",
    "Tokens",
    "Upload",
    "Uploaded",
    "Wait",
    "Waited",
    "Where",
    "WorkerCommand",
    "WorkerDrains",
    "WorkerLost",
    "WorkerSilent",
    "Workers",
]

# What changes nothing, and is safe to ask of anybody again.
Read = (
    DeadLetters
    | Queues
    | Get
    | GetRequest
    | GetResults
    | List
    | Wait
    | Workers
    | Tokens
    | Status
    | StoreStatistics
    | Backup
    | Logs
)
ClientCommand = (
    Submit
    | Upload
    | AddEntries
    | Cancel
    | Hold
    | Release
    | Requeue
    | Retry
    | SetPriority
    | SetThrottle
    | Forget
    | Purge
    | SetQueue
    | Drain
    | CreateToken
    | RevokeToken
    | Read
)
WorkerCommand = Join | Started | Report | Handback | WorkerDrains
ServerCommand = WorkerLost | WorkerSilent | InputDamaged | Recover | Tick | Retain | Dispatch
Command = ClientCommand | WorkerCommand | ServerCommand
Answer = (
    Submitted
    | Uploaded
    | Requested
    | Acted
    | Document
    | Page
    | Results
    | Waited
    | Done
    | BackupPart
    | Chunk
    | LogsEnd
    | Joined
    | Recovered
)
Effect = Start | Stop | Recall | Acknowledge | Supersede | TaskChanged | DrainAsked | TokenRevoked
