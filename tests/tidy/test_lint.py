"""Style and types. Their configuration, with a reason for each exception, is in pyproject.toml."""

import subprocess
import sys

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
