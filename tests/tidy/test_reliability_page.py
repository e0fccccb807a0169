"""Every test that docs/reliability.md names exists, and every row of it names one or says why not."""

import re
from functools import cache
from typing import Final

from tests.tidy import tree

PAGE: Final = tree.ROOT / "docs/reliability.md"


@cache
def existing() -> set[str]:
    return {one.name for path in tree.python("tests") for one in tree.functions(path) if one.name.startswith("test_")}


def named(text: str) -> set[str]:
    return set(re.findall(r"`(test_\w+)`", text))


def rows(text: str) -> list[str]:
    """Return the rows of all tables, without their heads."""
    return [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| fault |")]


def test_every_test_that_the_page_names_exists() -> None:
    assert sorted(named(PAGE.read_text()) - existing()) == []


def test_every_row_names_its_tests_or_says_why_there_is_none() -> None:
    wrong = [
        row for row in rows(PAGE.read_text()) if not (named(row) or "the rows above" in row or "Does not apply" in row)
    ]

    assert wrong == []


def test_a_test_that_is_gone_is_noticed() -> None:
    assert named("| a | b | `test_that_was_renamed` |") - existing() == {"test_that_was_renamed"}
