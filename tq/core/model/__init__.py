"""What there is: jobs, tasks, timers, names, and the tables in which they stand.

It owns the table of legal moves (task.py), the formula of the back-off (retry.py) and the form of each record. It
never decides when a move is made, and knows no command.
"""
