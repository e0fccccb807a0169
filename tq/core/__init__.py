"""THE CORE DECIDES: commands in; answers, changes and effects out.

It owns the life of a task. It never does I/O, asks a clock or throws dice: what it needs comes with a command.
"""
