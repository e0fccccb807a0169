"""Calls of Python functions, in processes that are kept warm.

It owns the pool of these processes, what is said to them, and the program that they run (warm_process.py). It never
ends a process by itself: the reaper does.
"""
