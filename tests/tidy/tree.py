"""The project's files as the tidy tests see them: paths, text, syntax trees."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
CODE: Final = ("tq", "bench", "tools", "tests")
TEXT: Final = (".py", ".md", ".sh", ".toml", ".c", ".json", ".yaml", ".yml", ".txt", ".service")
_GENERATED: Final = ("__pycache__", "testdata", "snapshots")


def relative(path: Path) -> str:
    """Return the path as people write it: `tq/core/model/task.py`."""
    return path.relative_to(ROOT).as_posix()


def python(*rooms: str) -> list[Path]:
    """Return the Python files below these directories of the project, sorted."""
    found = (path for room in rooms for path in (ROOT / room).rglob("*.py"))
    return sorted(path for path in found if not set(path.parts) & set(_GENERATED))


def rooms() -> list[str]:
    """Return every folder of modules as people write it, sorted: `core`, `core/model`."""
    return sorted(path.parent.relative_to(ROOT / "tq").as_posix() for path in (ROOT / "tq").rglob("*/__init__.py"))


def texts() -> list[Path]:
    """Return every text file that belongs to the project, sorted."""
    places = [ROOT / place for place in (*CODE, "docs", "man", "completions", ".ci")]
    below = (path for place in places for path in place.rglob("*") if path.is_file())
    top = (path for path in ROOT.iterdir() if path.is_file())
    found = [path for path in (*below, *top) if path.suffix in TEXT or path.name in {"Makefile", "run"}]
    return sorted(path for path in found if "__pycache__" not in path.parts)


@cache
def syntax(path: Path) -> ast.Module:
    """Return the parsed file."""
    return ast.parse(path.read_text(), str(path))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function and method of a file."""
    for node in ast.walk(syntax(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def classes(path: Path) -> Iterator[ast.ClassDef]:
    """Yield every class of a file."""
    for node in ast.walk(syntax(path)):
        if isinstance(node, ast.ClassDef):
            yield node


def lines(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> int:
    """Return how many lines a definition takes, its docstring and decorators included."""
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    assert node.end_lineno is not None
    return node.end_lineno - first + 1
