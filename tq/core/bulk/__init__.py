"""What is done to many tasks at once: cancel, hold, retry and their kin, by ids or by a filter.

It owns the verbs and the sweeps in which they go on, slice by slice. It never touches a task but through a step.
"""
