"""What must be true of a store, and how a store is made anew from what is left of it.

It owns the invariants and the rebuild. It never runs inside the server: only checks, salvage and tests call it.
"""
