"""Every table of the store with its key fields (docs/store-format.md). A job is two integers in a key: job and part.

Widths and families of the keys are the store's business (store/keys.py); the core sees tuples.
"""

from typing import Any, Final

from tq.core.model.job import Entries, Forgotten, Job, KeyUse, Lane, Meta, Progress, Queue, Sweep, Token, Upload
from tq.core.model.task import Task
from tq.core.model.view import Table

META: Final = Table("meta", Meta)  # one row, at the key ()
JOB: Final = Table("job", Job, "job", "part")
PROGRESS: Final = Table("progress", Progress, "job", "part")
TASK: Final = Table("task", Task, "job", "part", "member")
RUNNING: Final = Table("running", int, "worker", "job", "part", "member")  # the lane
AGAIN: Final = Table("again", bool, "job", "part", "lane", "since", "member")
READY: Final = Table("ready", bool, "lane", "rank", "job", "part")
LANE: Final = Table("lane", Lane, "lane")
LANE_NAME: Final = Table("lane_name", int, "name")
TIMER: Final = Table("timer", bool, "clock", "due", "kind", "job", "part", "member")
KEY: Final = Table("key", KeyUse, "name")
KEY_END: Final = Table("key_end", bool, "due", "name")  # when the keys of forgotten jobs go
DEAD: Final = Table("dead", bool, "time", "job", "part", "member")
ENDED: Final = Table("ended", bool, "time", "job")
UPLOAD: Final = Table("upload", Upload, "name")
BODY: Final = Table("body", bytes, "blob", "piece")
ENTRIES: Final = Table("entries", Entries, "blob", "first")
ENTRY_AT: Final = Table("entry_at", bool, "blob", "first")  # where runs of entries begin: found without reading them
RESULT: Final = Table("result", bytes, "job", "part", "member")  # values over result_inline_bytes_max
BLOB_USER: Final = Table("blob_user", bool, "blob", "job")  # the jobs of a blob that more than one has
QUEUE: Final = Table("queue", Queue, "name")
NAMED: Final = Table("named", bool, "word", "back")  # which jobs have a word (read/job_index.py)
SWEEP: Final = Table("sweep", Sweep, "sweep")
TOKEN: Final = Table("token", Token, "name")

# Not a table on disk: a put here makes the store delete all rows of TASK, output and blobs of the job, as ranges.
FORGOTTEN: Final = Table("forgotten", Forgotten, "job")

TABLES: Final[tuple[Table[Any], ...]] = (
    META,
    JOB,
    PROGRESS,
    TASK,
    RUNNING,
    AGAIN,
    READY,
    LANE,
    LANE_NAME,
    TIMER,
    KEY,
    KEY_END,
    DEAD,
    ENDED,
    UPLOAD,
    BODY,
    ENTRIES,
    ENTRY_AT,
    RESULT,
    BLOB_USER,
    QUEUE,
    NAMED,
    SWEEP,
    TOKEN,
)
