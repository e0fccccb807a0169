"""What a client says and what it makes of the answers, without a connection.

It owns requests, dialogues (generators that yield requests and are sent answers) and results. It never does I/O, so one
dialogue serves the trio API and the blocking one.
"""
