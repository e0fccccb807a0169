"""What keeps a server running: its identity, its connection file, backups, and the loops of its upkeep.

It owns the files beside the store. It never takes a peer's command.
"""
