"""What generators of pages share: fill a place in a page; write it, or with `--check` say whether it is up to date."""

import sys
from pathlib import Path


def fill(page: str, name: str, text: str) -> str:
    """Return the page with `text` between its `<!-- begin NAME -->` and `<!-- end NAME -->`."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    if page.count(begin) != 1 or page.count(end) != 1:
        raise SystemExit(f"the page has no place for {name}")
    head, _, rest = page.partition(begin)
    return f"{head}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}"


def write(path: Path, text: str) -> None:
    """Write the page; with `--check` on the command line, exit 1 where it differs from what is there."""
    if "--check" not in sys.argv[1:]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    elif not path.exists() or path.read_text() != text:
        sys.exit(f"{path.name} is out of date. hint: run `make docs`")
