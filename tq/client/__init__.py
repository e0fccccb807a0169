"""How a program talks to a server: `target` finds it, `pinning` trusts it, `blocking` asks it."""
