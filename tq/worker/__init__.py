"""THE WORKER HOLDS: the trio process that gets work from the server and hands it to the launcher.

It owns the connection, what is held and what was not acknowledged yet (state.py, outbox.py, spool.py). It never starts
a task's process, and never decides whether a task is run again.
"""
