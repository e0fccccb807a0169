"""The core decides: pure functions over a View, no I/O, no clock, no dice (docs/architecture.md)."""
