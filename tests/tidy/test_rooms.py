"""A room has few modules, says what it owns and what it never does, and no files of it need each other in a circle."""

import ast
from graphlib import CycleError, TopologicalSorter
from typing import Final

import pytest

from tests.tidy import tree

MODULES_MAX: Final = 25
ROOMY: Final = {"cli/verbs"}  # one file for each verb


@pytest.mark.parametrize("room", tree.rooms())
def test_a_room_says_what_it_owns_and_what_it_never_does(room: str) -> None:
    head = ast.get_docstring(tree.syntax(tree.ROOT / "tq" / room / "__init__.py")) or ""
    what, _, rest = head.partition("\n\n")

    assert what
    assert rest.startswith("It owns ")
    assert "never" in rest.partition("\n\n")[0].split()


@pytest.mark.parametrize("room", sorted({*tree.rooms()} - ROOMY))
def test_a_room_has_at_most_25_modules(room: str) -> None:
    assert len(list((tree.ROOT / "tq" / room).glob("[!_]*.py"))) <= MODULES_MAX


def imports() -> dict[str, set[str]]:
    """Return which modules of tq each module names in an import, anywhere in it."""
    dotted = {
        tree.relative(path).removesuffix(".py").removesuffix("/__init__").replace("/", "."): path
        for path in tree.python("tq")
    }
    found: dict[str, set[str]] = {}
    for module, path in dotted.items():
        named = [node for node in ast.walk(tree.syntax(path)) if isinstance(node, ast.ImportFrom) and node.module]
        pairs = [(node.module or "", f"{node.module}.{alias.name}") for node in named for alias in node.names]
        found[module] = {inner if inner in dotted else outer for outer, inner in pairs} & {*dotted} - {module}
    return found


def circle(needs: dict[str, set[str]]) -> list[str]:
    """Return modules of which each needs the next, and the last the first; [] if there is no such circle."""
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_files_need_each_other_in_a_circle() -> None:
    found = imports()

    assert sum(map(len, found.values())) > 1000
    assert circle(found) == []


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) != []
