"""How records change: one step at a time, with its indexes, its counters and its timers.

It owns the step (step.py), in which every change of a task is made, and what goes with each of them. It never picks
which task is next, and never begins a turn.
"""
