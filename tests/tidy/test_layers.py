"""Who may import whom (the contracts in pyproject.toml), and what an import costs."""

import subprocess
import sys
from typing import Final

import pytest

from tests.tidy import tree

HEAVY: Final = {"trio", "rich", "rocksdict", "cryptography", "asyncio", "msgspec", "cbor2", "typer"}


def python(code: str) -> str:
    """Run code in a fresh interpreter in the project's directory and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=tree.ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def imported_by(module: str) -> set[str]:
    """Return the names of the top-level modules that importing `module` brings in."""
    code = f"import sys; before = set(sys.modules); import {module}; print(*(set(sys.modules) - before))"
    return {name.partition(".")[0] for name in python(code).split()}


def test_the_import_contracts_are_kept() -> None:
    python("import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))")


def test_importing_tq_imports_nothing_else() -> None:
    assert imported_by("tq") == {"tq"}


@pytest.mark.parametrize("module", ["tq.core.vocabulary", "tq.wire.messages"])
def test_the_core_and_the_wire_load_without_trio_or_the_store(module: str) -> None:
    assert imported_by(module) & (HEAVY - {"msgspec"}) == set()


def test_the_command_line_starts_without_what_only_servers_and_tables_need() -> None:
    assert imported_by("tq.cli.app") & (HEAVY - {"typer", "msgspec", "cbor2"}) == set()
