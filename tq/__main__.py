"""`python -m tq` is the program `tq`."""

from tq.cli.app import main

if __name__ == "__main__":
    main()
