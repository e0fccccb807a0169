"""THE COMMAND LINE TALKS TO PEOPLE: `app` is the program, `root` has the table of verbs.

It owns what is typed and what is printed. Nothing here imports trio, rich or rocksdict at the top of a module: a start
of `tq` has 50 ms. It never decides about a task.
"""
