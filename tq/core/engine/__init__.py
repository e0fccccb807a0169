"""The engine: turns of commands, and what each command does.

It owns the order in a turn, the leases, and what is given to which worker. It never does what a sweep does (bulk), and
never answers a question by itself (read).
"""
