"""The store remembers: ordered tables on disk (RocksDB) or in memory, behind one seam."""
