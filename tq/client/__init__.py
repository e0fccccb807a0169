"""How a program talks to a server: `target` finds it, `blocking` asks it."""
