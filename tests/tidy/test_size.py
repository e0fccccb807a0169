"""A file has one noun, a function fits a screen, a class stays small; exceptions carry a reason and may only shrink."""

from collections.abc import Iterator
from typing import Final

import pytest

from tests.tidy import tree

FILE_LINES_MAX: Final = 400
TEST_LINES_MAX: Final = 500
FUNCTION_LINES_MAX: Final = 70
METHODS_MAX: Final = 20

# What is over the bound: what it is, how large, and why. The number is a ratchet: lower it whenever it shrinks.
FILES: Final[dict[str, tuple[int, str]]] = {}
FUNCTIONS: Final[dict[str, tuple[int, str]]] = {}
CLASSES: Final[dict[str, tuple[int, str]]] = {}


def over(sizes: Iterator[tuple[str, int]], bound: int, exceptions: dict[str, tuple[int, str]]) -> list[str]:
    """Return a line for everything over its bound, and for every exception that is no longer needed as it is."""
    found = dict(sizes)
    wrong = [f"{name}: {size} > {bound}" for name, size in found.items() if size > bound and name not in exceptions]
    for name, (size, _) in exceptions.items():
        if found.get(name, 0) != size:
            wrong.append(f"{name}: the list says {size}, it is {found.get(name, 0)}")
    return wrong


@pytest.mark.parametrize("room, bound", [("tq", FILE_LINES_MAX), ("tests", TEST_LINES_MAX)])
def test_a_file_has_few_lines(room: str, bound: int) -> None:
    sizes = ((tree.relative(path), path.read_text().count("\n")) for path in tree.python(room))

    assert over(sizes, bound, FILES) == []


def test_a_function_has_at_most_70_lines() -> None:
    sizes = (
        (f"{tree.relative(path)}:{function.name}", tree.lines(function))
        for path in tree.python(*tree.CODE)
        for function in tree.functions(path)
    )

    assert over(sizes, FUNCTION_LINES_MAX, FUNCTIONS) == []


def test_a_class_has_at_most_20_methods() -> None:
    sizes = (
        (f"{tree.relative(path)}:{found.name}", sum(hasattr(child, "decorator_list") for child in found.body))
        for path in tree.python(*tree.CODE)
        for found in tree.classes(path)
    )

    assert over(sizes, METHODS_MAX, CLASSES) == []


def test_an_exception_that_shrank_is_noticed() -> None:
    exceptions = {"a": (90, "reason"), "b": (80, "reason")}

    assert over(iter([("a", 90), ("b", 75), ("c", 71)]), 70, exceptions) == [
        "c: 71 > 70",
        "b: the list says 80, it is 75",
    ]
