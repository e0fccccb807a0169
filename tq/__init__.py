"""tq: a durable, distributed task queue that lives in the shell.

Importing this package costs nothing: every room is imported by whoever needs it.
"""

__version__ = "0.2.0"
