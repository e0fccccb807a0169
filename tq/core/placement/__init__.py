"""What is known of the workers, and which task fits which of them.

It owns the soft state (live.py), which is folded from what was committed and can be lost. It never writes a record.
"""
