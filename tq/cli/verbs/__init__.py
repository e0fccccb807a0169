"""A file for each verb or noun: its options, its help, and what it does.

It owns what is particular to a verb. It never has a rule about tasks: it asks, and shows the answer.
"""
