"""What every generator of a page ends with: write the page, or with `--check` say whether it is up to date."""

import sys
from pathlib import Path


def write(path: Path, text: str) -> None:
    """Write the page; with `--check` on the command line, exit 1 where it differs from what is there."""
    if "--check" not in sys.argv[1:]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    elif not path.exists() or path.read_text() != text:
        sys.exit(f"{path.name} is out of date. hint: run `make docs`")
