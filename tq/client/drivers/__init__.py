"""How a client's dialogues reach a server: connections with trio and without, and what is done when one is lost.

It owns sockets, threads and the time between tries. It never knows what a request means.
"""
