"""The server runs: one commit loop, one session for each peer."""
