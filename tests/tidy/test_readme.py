"""The README shows only what exists: every verb and every option in it is one of the program's."""

import re
import subprocess
import sys
from functools import cache
from typing import Final

import pytest

from tests.tidy import tree

README: Final = (tree.ROOT / "README.md").read_text()
CODE: Final = re.findall(r"```sh\n(.*?)```", README, re.DOTALL) + re.findall(r"`([^`\n]+)`", README)
CODE_LINES: Final = [line for code in CODE for line in code.splitlines()]
CALL: Final = re.compile(r"(?:^|[|&$;(] ?)\btq ((?:-\w \w+ )*)([a-z]+)(.*)")


def calls() -> list[tuple[str, tuple[str, ...]]]:
    """Return the verb and the options of every call of `tq` in the README."""
    found = []
    for line in [*CODE_LINES, *(line.strip() for line in README.splitlines() if line.startswith("    "))]:
        for part in re.split(r" && | \| |\$ (?=\w)| (?=tq )", line.partition("  #")[0]):
            match = CALL.match(part.strip())
            if match:
                words = (match[1] + match[3]).partition(" -- ")[0].split()
                found.append((match[2], tuple(word for word in words if word.startswith("-") and word != "--")))
    return sorted(set(found))


@cache
def help_of(*words: str) -> str:
    """Return what `tq WORDS --help` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "tq", *words, "--help"], cwd=tree.ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + "\n" + ("" if not words else help_of())


def test_the_readme_shows_the_common_verbs() -> None:
    assert {verb for verb, _ in calls()} >= {"up", "run", "submit", "ls", "show", "logs", "wait", "cancel", "join"}


@pytest.mark.parametrize(
    "verb,options", calls(), ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_what_the_readme_shows_exists(verb: str, options: tuple[str, ...]) -> None:
    text = help_of(verb)

    assert [option for option in options if not re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text)] == []


def test_the_readme_has_two_commands_and_each_does_all_the_set_up() -> None:
    commands = [line for line in CODE_LINES if line.startswith("python3 -m venv .venv && .venv/bin/pip install -q ")]

    assert len(commands) == 2
    assert commands[0].endswith(" && .venv/bin/tq demo")
    assert commands[1].endswith(" && .venv/bin/python -m pytest -q -n 3")
