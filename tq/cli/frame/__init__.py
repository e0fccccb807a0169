"""What every verb stands on: its declaration, its context, the values of its options.

It owns how an option is declared and checked. It never asks a server.
"""
