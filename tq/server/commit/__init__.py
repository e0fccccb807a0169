"""From command to disk: the intake, the turns, and the flush that comes before each answer.

It owns the order of commands, and the clock that the core is given. It never looks at who is connected.
"""
