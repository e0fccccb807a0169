"""TALKS TO PEOPLE: `app` finds the verb, one file for each verb or noun, `output` prints.

Nothing here imports trio, rich or rocksdict at the top of a module: a start of `tq` has 50 ms.
"""
