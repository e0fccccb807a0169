"""What pyproject.toml says of packages is there, and what there is, is packed: no build here would tell."""

import ast
import re
import sys
import tomllib
from importlib import import_module
from pathlib import PurePosixPath
from typing import Any, Final

import pytest

from tests.tidy import tree
from tq.cli.verbs import completion

PROJECT: Final[dict[str, Any]] = tomllib.loads((tree.ROOT / "pyproject.toml").read_text())
TARGETS: Final[dict[str, Any]] = PROJECT["tool"]["hatch"]["build"]["targets"]
UNPACKED: Final = {"pyproject.toml", "build", "dist"}  # the build packs the first by itself, and makes the others
PLACES: Final = {  # where bash-completion, zsh and fish look for what a program brings
    "bash": "share/bash-completion/completions/tq",
    "zsh": "share/zsh/site-functions/_tq",
    "fish": "share/fish/vendor_completions.d/tq.fish",
}


def shared() -> dict[str, str]:
    """Return, for each file that the wheel installs beside the program, where it goes."""
    found: dict[str, str] = {}
    for source, place in TARGETS["wheel"]["shared-data"].items():
        path = tree.ROOT / source
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            rest = file.relative_to(path).as_posix()
            found[tree.relative(file)] = str(PurePosixPath(place, rest))
    return found


@pytest.mark.parametrize("pattern", TARGETS["sdist"]["include"])
def test_what_the_source_package_lists_is_there(pattern: str) -> None:
    assert pattern.startswith("/"), "else it matches at any depth"
    assert list(tree.ROOT.glob(pattern[1:]))


def test_the_source_package_has_all_there_is() -> None:
    packed = {path.name for pattern in TARGETS["sdist"]["include"] for path in tree.ROOT.glob(pattern[1:])}
    there = {path.name for path in tree.ROOT.iterdir() if not path.name.startswith(".")}

    assert {name for name in there - packed - UNPACKED if not name.endswith(".egg-info")} == set()


def test_what_the_wheel_lists_is_there() -> None:
    assert [
        package for package in TARGETS["wheel"]["packages"] if not (tree.ROOT / package / "__init__.py").is_file()
    ] == []
    assert [source for source in TARGETS["wheel"]["shared-data"] if not (tree.ROOT / source).exists()] == []


def test_every_man_page_is_installed_where_man_looks_and_nothing_else_is() -> None:
    pages = {tree.relative(path): f"share/man/man1/{path.name}" for path in (tree.ROOT / "man").iterdir()}

    assert pages
    assert all(name.endswith(".1") for name in pages)
    assert {name: place for name, place in shared().items() if "/man/" in place} == pages


def test_the_completion_of_every_shell_is_installed_where_it_looks() -> None:
    files = {"bash": "completions/tq.bash", "zsh": "completions/_tq", "fish": "completions/tq.fish"}

    assert set(files) == set(PLACES) == set(completion.SHELLS)
    assert {tree.relative(path) for path in (tree.ROOT / "completions").iterdir()} == set(files.values())
    assert {name: place for name, place in shared().items() if name.startswith("completions/")} == {
        files[shell]: place for shell, place in PLACES.items()
    }


def test_the_libraries_that_the_project_asks_for_are_those_that_it_imports() -> None:
    asked = {re.match(r"[a-z0-9-]+", requirement)[0] for requirement in PROJECT["project"]["dependencies"]}  # type: ignore[index]
    nodes = [node for path in tree.python("tq") for node in ast.walk(tree.syntax(path))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    imported = {name.partition(".")[0] for name in names}

    assert asked == imported - sys.stdlib_module_names - {"tq"}


def test_the_files_and_the_program_that_the_project_names_are_there() -> None:
    project = PROJECT["project"]
    version = PROJECT["tool"]["hatch"]["version"]["path"]
    for name in (project["readme"], *project["license-files"], version):
        assert (tree.ROOT / name).is_file(), name
    for entry in project["scripts"].values():
        module, _, function = entry.partition(":")
        assert callable(getattr(import_module(module), function))
