"""THE STORE REMEMBERS: ordered tables on disk (RocksDB) or in memory, behind one seam.

It owns keys, records, the directory of a server, backups, and what may be trusted on a disk. It never decides what is
written.
"""
