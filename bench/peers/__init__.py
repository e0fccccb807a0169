"""Other queues and executors, each in one file: what it needs, and the workloads that it can be asked for.

A peer runs in an interpreter of its own, that of a scratch environment which has what it needs from PyPI, with its
servers in a scratch directory, on loopback and free ports: `python -m peers.rq WORKLOAD COUNT DIRECTORY` prints JSON.
The head of each file is plain Python, so that tq's own environment can read what a peer is without having it.
"""
