"""What people ask: pages of jobs, tasks, workers and queues, searches, waits, and why something does not run.

It owns what an answer has in it. It never changes anything: it gets a view, and no way to write to it.
"""
