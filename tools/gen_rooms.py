"""Draw the rooms at the head of docs/architecture.md, and list them, from the contracts and the rooms' own first lines.

python tools/gen_rooms.py [--check]

The order is that of the layers in pyproject.toml; what a room owns, and what it never does, is said by its
`__init__.py`. The picture is between `<!-- begin picture -->` and its end, the list between those of `rooms`.
"""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from page import fill, write

ROOT: Final = Path(__file__).resolve().parent.parent
WIDTH: Final = 100


def layers() -> dict[str, list[list[str]]]:
    """Return the layers of `tq` and of each room that has some: from the top, with the rooms that share one."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return {
        contract["containers"][0]: [
            [room.strip("() ") for room in layer.split("|") if is_here(contract["containers"][0], room.strip("() "))]
            for layer in contract["layers"]
        ]
        for contract in contracts
        if contract["type"] == "layers"
    }


def place(room: str) -> Path:
    """Return the folder of a room, or the file without its ending."""
    return ROOT.joinpath(*room.split("."))


def is_here(container: str, name: str) -> bool:
    """Whether there is such a room yet: a contract may name one that is to come."""
    path = place(f"{container}.{name}")
    return path.is_dir() or path.with_suffix(".py").exists()


def modules(room: str) -> int:
    """Return how many modules a room has, those of its rooms among them."""
    return sum(path.name != "__init__.py" for path in place(room).rglob("*.py"))


def box(lines: list[str], width: int) -> list[str]:
    """Draw a frame around lines."""
    inner = width - 4
    return [f"┌{'─' * (width - 2)}┐", *(f"│ {line:<{inner}} │" for line in lines), f"└{'─' * (width - 2)}┘"]


def drawn(room: str, inner: dict[str, list[list[str]]], width: int) -> list[str]:
    """Draw one room, with the rooms inside it in their order."""
    if not place(room).is_dir():
        return box([room.rpartition(".")[2]], width)
    rooms = [name for layer in inner.get(room, []) for name in layer if place(f"{room}.{name}").is_dir()]
    title = f"{room.rpartition('.')[2]}  {modules(room)}"
    below = [f"  {name}  {modules(f'{room}.{name}')}" for name in rooms]
    return box([title, *below], width)


def picture() -> Iterator[str]:
    """Yield the lines of the picture: above is who may import what is below."""
    known = layers()
    yield "```text"
    for layer in known["tq"]:
        rooms = [name for name in layer if not name.startswith("__")]
        if not rooms:
            continue
        width = WIDTH // len(rooms)
        boxes = [drawn(f"tq.{name}", known, width) for name in rooms]
        height = max(map(len, boxes))
        for one in boxes:
            one[-1:-1] = [f"│{' ' * (width - 2)}│"] * (height - len(one))
        yield from ("".join(parts) for parts in zip(*boxes, strict=True))
    yield "```"


def head(room: str) -> tuple[str, str]:
    """Return the first line of a room's docstring, and what it owns and never does."""
    text = ast.get_docstring(ast.parse((place(room) / "__init__.py").read_text())) or ""
    first, _, rest = text.partition("\n\n")
    return " ".join(first.split()), " ".join(rest.partition("\n\n")[0].split())


def rooms() -> Iterator[str]:
    """Yield a row for each room."""
    yield "| room | what it is | |"
    yield "|---|---|---|"
    known = layers()
    for layer in known["tq"]:
        for name in layer:
            yield from row(f"tq.{name}", known)


def row(room: str, known: dict[str, list[list[str]]]) -> Iterator[str]:
    """Yield the row of a room, then those of the rooms in it."""
    if not place(room).is_dir():
        return
    first, rest = head(room)
    yield f"| `{room.replace('.', '/')[3:]}/` | {first} | {rest} |"
    for layer in known.get(room, []):
        for name in layer:
            yield from row(f"{room}.{name}", known)


if __name__ == "__main__":
    path = ROOT / "docs/architecture.md"
    text = fill(path.read_text(), "picture", "\n".join(picture()))
    write(path, fill(text, "rooms", "\n".join(rooms())))
