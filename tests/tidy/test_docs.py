"""Pages that are generated say what the code says, and links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.tidy import tree

PAGES: Final = sorted(path for path in tree.texts() if path.suffix == ".md")
GENERATORS: Final = sorted((tree.ROOT / "tools").glob("gen_*.py"))
OPTION: Final = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
FOREIGN: Final = (
    "tq/cli/frame/foreign_words.py"  # has the options of others; tests/cli/test_foreign_words.py looks at its hints
)
LINK: Final = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ +(.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(page: Path) -> list[str]:
    """Return the links of a page that lead nowhere in the project."""
    wrong = []
    for link in LINK.findall(page.read_text()):
        place, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = (page.parent / place).resolve() if place else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=tree.relative)
def test_links_lead_somewhere(page: Path) -> None:
    assert broken(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text("# One, two\n[a](#one-two) [b](#three) [c](b.md) [d](a.md#one-two) [e](https://example.org/x)\n")

    assert broken(page) == ["#three", "b.md"]


def test_a_page_that_the_code_names_exists() -> None:
    wrong = [
        f"{tree.relative(path)}: {page}"
        for path in tree.python("tq", "bench", "tools")
        for page in re.findall(r"[\w/-]+\.md\b", path.read_text())
        if not any((place / page).exists() for place in (tree.ROOT, tree.ROOT / "docs", path.parent))
    ]

    assert wrong == []


def test_a_module_that_the_code_names_exists() -> None:
    wrong = [
        f"{tree.relative(path)}: {module}"
        for path in tree.python("tq")
        for module in re.findall(r"[\w/]+\.py\b", path.read_text())
        if not any((place / module).exists() for place in (*path.parents[:2], tree.ROOT / "tq", tree.ROOT))
    ]

    assert wrong == []


def test_what_contributing_says_is_in_a_file_is_defined_there() -> None:
    page = (tree.ROOT / "CONTRIBUTING.md").read_text()
    pairs = re.findall(r"`(\w+)`,? (?:and `(\w+)` )?in `((?:tq|tools|tests)/[\w/]+\.py)`", page)
    wrong = [
        f"{path}: {name}"
        for *names, path in pairs
        for name in filter(None, names)
        if not re.search(rf"^(?:class |def |async def )?{name}\b", (tree.ROOT / path).read_text(), re.MULTILINE)
    ]

    assert len(pairs) > 8
    assert wrong == []


@pytest.mark.parametrize("generator", GENERATORS, ids=tree.relative)
def test_a_generated_page_is_what_the_code_says(generator: Path) -> None:
    done = subprocess.run(
        [sys.executable, generator, "--check"], cwd=tree.ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


def test_every_room_is_in_the_architecture() -> None:
    page = (tree.ROOT / "docs/architecture.md").read_text()

    assert [room for room in tree.rooms() if f"`{room}/`" not in page] == []


def test_every_decision_says_whether_it_stands_and_is_listed() -> None:
    rows = re.findall(
        r"^\| \[(\d{4})\]\(([^)]+)\) \| (.*) \|$", (tree.ROOT / "docs/adr/README.md").read_text(), re.MULTILINE
    )
    pages = sorted((tree.ROOT / "docs/adr").glob("[0-9]*.md"))

    assert [name for _, name, _ in rows] == [page.name for page in pages]
    for (number, _, title), page in zip(rows, pages, strict=True):
        head, _, status, *_ = page.read_text().splitlines()
        assert (head, page.name[:4]) == (f"# {number}: {title}", number)
        assert status.startswith("**Status**: "), page.name


@pytest.mark.parametrize("page", sorted((tree.ROOT / "man").iterdir()), ids=lambda page: page.stem)
def test_what_is_copied_from_a_man_page_is_what_was_written(page: Path) -> None:
    text = [line for line in page.read_text().splitlines() if not line.startswith(".")]
    bare = [line for line in text if re.search(r"[-'`~^]", re.sub(r"\\(\(..|.)", "", line))]

    assert not bare


def test_every_variable_that_a_program_reads_stands_on_both_pages() -> None:
    """What the command line and the client read; a task's own variables are bytes, and their page is semantics.md."""
    read = {
        name
        for path in tree.python("tq")
        for name in re.findall(r'(?<!b)"(TQ_[A-Z_]+)"', path.read_text())
        if name not in {"TQ_UP", "TQ_ENTRY"}  # from one program of tq to the other; to a task
    }
    for page in ("docs/cli.md", "man/tq.1"):
        assert read - set(re.findall(r"TQ_[A-Z_]+", (tree.ROOT / page).read_text())) == set(), page


def test_an_option_that_a_hint_or_a_page_names_exists() -> None:
    known = set(OPTION.findall((tree.ROOT / "docs/cli.md").read_text()))
    pages = [tree.ROOT / "README.md", *(tree.ROOT / "docs").glob("*.md")]
    wrong = [
        f"{tree.relative(path)}: {option}"
        for path in (*tree.python("tq"), *pages)
        for option in OPTION.findall(path.read_text())
        if option not in known and tree.relative(path) != FOREIGN
    ]

    assert wrong == []
