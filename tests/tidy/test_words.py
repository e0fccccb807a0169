"""One word means one thing, nothing is left for later, and no file speaks of the machine it was written on."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.tidy import tree

# Part of a name in code -> the word to use instead (docs/architecture.md, "Words").
SYNONYMS: Final = {
    "agent": "worker",
    "blacklist": "what it excludes",
    "broker": "server",
    "dequeue": "lease",
    "enqueue": "submit",
    "execution": "attempt",
    "master": "server",
    "slave": "worker",
    "subtask": "member",
    "whitelist": "allow-list",
}
EMPTY_NOUNS: Final = ("Manager", "Helper", "Handler", "Base", "Util", "Utils")
LATER: Final = re.compile(r"\b(FIX" + r"ME|TO" + r"DO|XX" + r"X|HA" + r"CK)\b")
ELSEWHERE: Final = re.compile(
    "|".join(
        [
            r"(?<![\w.~}/-])/(?:wo" + r"rk|ro" + r"ot|fa" + r"rm)/",  # somebody's machine
            r"(?<![\w.~}/-])/ho" + r"me/(?!alice|bob|you\b|USER)",
            r"files\.pythonho" + r"sted|//pypi\.o" + r"rg|deb\.debi" + r"an\.org",
        ]
    )
)


def names(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of everything that a file defines."""
    for node in ast.walk(tree.syntax(path)):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.lineno, node.name
            case ast.arg():
                yield node.lineno, node.arg
            case ast.Name(ctx=ast.Store()):
                yield node.lineno, node.id
            case ast.Attribute(ctx=ast.Store()):
                yield node.lineno, node.attr


def words(name: str) -> set[str]:
    """Return the words of a name, in lower case: `LeaseClock` and `lease_clock` have two."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def test_a_name_is_taken_apart_into_its_words() -> None:
    assert words("LeaseClock") == words("lease_clock") == words("_LEASE_CLOCK") == {"lease", "clock"}


def test_code_uses_the_one_word_for_a_thing() -> None:
    wrong = [
        f"{tree.relative(path)}:{line}: {name}: say {SYNONYMS[word]}"
        for path in tree.python("tq")
        for line, name in names(path)
        for word in sorted(words(name) & SYNONYMS.keys())
    ]

    assert wrong == []


def test_no_class_has_an_empty_noun_for_a_name() -> None:
    wrong = [
        f"{tree.relative(path)}:{found.lineno}: {found.name}"
        for path in tree.python("tq")
        for found in tree.classes(path)
        if found.name.endswith(EMPTY_NOUNS)
    ]

    assert wrong == []


@pytest.mark.parametrize(
    "pattern,text",
    [(LATER, "# TO" + "DO: later"), (ELSEWHERE, 'open("/wo' + 'rk/x")'), (ELSEWHERE, " /ho" + "me/someone/x")],
)
def test_the_patterns_find_what_they_are_for(pattern: re.Pattern[str], text: str) -> None:
    assert pattern.search(text)


@pytest.mark.parametrize("pattern", [LATER, ELSEWHERE], ids=["nothing is left for later", "no machine is named"])
def test_no_text_has(pattern: re.Pattern[str]) -> None:
    wrong = [
        f"{tree.relative(path)}:{number}: {line.strip()[:100]}"
        for path in tree.texts()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]

    assert wrong == []
