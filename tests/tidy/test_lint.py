"""Style and types. Their configuration, with a reason for each exception, is in pyproject.toml."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tidy import tree


def run(*arguments: str) -> None:
    """Run a tool of this environment over the project; its output is the failure's text."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=tree.ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_code_keeps_the_rules_of_style() -> None:
    run("ruff", "check", "--no-cache", "--output-format=concise", ".")


@pytest.mark.slow
def test_the_types_are_right() -> None:
    run("mypy")


def unused(path: Path) -> Iterator[str]:
    """Yield the private names of a module, and of its classes, that it never reads: ruff looks into functions only."""
    nodes = tuple(ast.walk(tree.syntax(path)))
    read = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    read |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}
    for scope in nodes:
        for node in scope.body if isinstance(scope, ast.Module | ast.ClassDef) else ():
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                    made = {node.name}
                case ast.Assign() | ast.AnnAssign():
                    made = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
                case _:
                    continue
            private = {name for name in made if name.startswith("_") and not name.startswith("__")} - {"_"}
            yield from (f"{path.name}:{node.lineno}: {name}" for name in sorted(private - read))


def test_no_private_name_is_left_over() -> None:
    assert [name for path in tree.python("tq") for name in unused(path)] == []


def test_a_name_that_is_left_over_is_found(tmp_path: Path) -> None:
    file = tmp_path / "left.py"
    file.write_text(
        "_a, _b = 1, 2\n_c: int = _a\nclass D:\n    def _e(self): return self._f()\n    def _f(self): ...\n"
    )

    assert list(unused(file)) == ["left.py:1: _b", "left.py:2: _c", "left.py:4: _e"]
