"""From answers to what is printed: tables and JSON, followed output, waits, exit codes.

It owns the words of which jobs are meant (selectors.py), pages and sinks. It never makes a job.
"""
