"""A plugin of pytest: `-p tests.mutants.plugin --mutant NAME` runs the tests on tq with that mutant applied."""

import pytest

from tests.mutants.mutants import MUTANTS

_patch = pytest.MonkeyPatch()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--mutant", choices=[mutant.__name__ for mutant in MUTANTS], help="break this promise of tq")


def pytest_configure(config: pytest.Config) -> None:
    for mutant in MUTANTS:
        if mutant.__name__ == config.getoption("--mutant"):
            mutant(_patch)
            return
    raise pytest.UsageError("which --mutant?")


def pytest_unconfigure(config: pytest.Config) -> None:
    _patch.undo()
