"""How many functions that do nothing a launcher's warm processes call in a second, without a server or a worker.

    python bench/pool_rate.py [N] [K]

The floor of `functions` (measures.py): N calls, K at once, driven as launcher_rate.py drives processes.
"""

import sys

from launcher_rate import Driver
from rig import NOOP


def main() -> None:
    n, k = (int(a) for a in (sys.argv[1:] + ["20000", "2"][len(sys.argv) - 1 :]))
    driver = Driver(k, NOOP, ("builtins",))
    try:
        print(driver.run(n).rate)
    finally:
        driver.close()


if __name__ == "__main__":
    main()
