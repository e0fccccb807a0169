"""From the options and the inputs of `submit` and `run` to a request, and to its id.

It owns how a command, its inputs and its environment are read. It never prints a result: showing does.
"""
