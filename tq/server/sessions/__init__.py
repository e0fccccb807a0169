"""One session for each peer, client or worker, and what they share.

It owns what a peer may ask (roles.py, admission.py) and what it is sent. It never changes the store but by a
command that it gives to the commit loop.
"""
