"""THE WIRE SPEAKS: bytes in, messages out, and back.

It owns the form of each frame and message. It never does I/O.
"""
