"""The wire speaks: bytes in, messages out, and back; no I/O here."""
