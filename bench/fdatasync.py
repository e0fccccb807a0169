"""The floor for durable commits: append 500 bytes, fdatasync, repeat.

    python bench/fdatasync.py DIRECTORY [SECONDS]      prints appends a second, on the disk that holds DIRECTORY

No queue that answers each submit by itself can be faster than this; one that shares a flush between several can.
"""

import os
import sys
import tempfile
import time

RECORD = bytes(range(250)) * 2


def rate(directory: str, seconds: float) -> float:
    """Return how many 500-byte appends a second this disk makes durable, one after the other."""
    with tempfile.TemporaryFile(dir=directory) as file:
        descriptor = file.fileno()
        os.write(descriptor, RECORD)
        os.fsync(descriptor)  # the first one also makes the file itself
        done, begin = 0, time.perf_counter()
        while time.perf_counter() - begin < seconds:
            os.write(descriptor, RECORD)
            os.fdatasync(descriptor)
            done += 1
        return done / (time.perf_counter() - begin)


if __name__ == "__main__":
    print(f"{rate(sys.argv[1], float((sys.argv[2:] or ['1'])[0])):.0f}")
