"""THE LAUNCHER RUNS: the process without trio that starts, watches and ends the processes of tasks.

It owns everything between fork and the last byte of output, and the words in which it talks to the worker
(protocol.py). It never imports the worker, trio, or anything of the network, and never decides about a task's future.
"""
