"""THE SERVER SERVES: `serve` builds its parts and runs them.

It owns sessions, the commit loop and the server's own upkeep, a room each. It never decides about a task: commands go
to the core, effects come from it.
"""
