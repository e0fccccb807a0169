"""How a program talks to a server."""
