"""Launchers that call functions: those of tests/support/called.py as the module `work`, and some that are broken."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import called
from tests.support.launcher import Link
from tq.launcher import protocol


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("modules")
    shutil.copy(called.__file__, directory / "work.py")
    (directory / "torn.py").write_text("import no_such_library\n")
    (directory / "wrong.py").write_text("def f(:\n")
    (directory / "script.py").write_text("import sys\ndef f(): return 1\nsys.exit()\n")
    (directory / "heavy.py").write_text("import time\ntime.sleep(0.6)\ndef f(): return 'heavy'\n")
    (directory / "parts").mkdir()
    (directory / "parts" / "__init__.py").write_text("")
    (directory / "parts" / "inner.py").write_text("def f(): return 'inner'\n")
    return directory


def offer(link: Link, place: Path, *modules: str) -> None:
    link.say(
        protocol.Functions(
            modules or ("work", "torn", "wrong", "script", "heavy", "parts"), (bytes(place),), bytes(place)
        )
    )


@pytest.fixture
def link(place: Path) -> Iterator[Link]:
    with Link(environment={"PATH": os.environ["PATH"], "SECRET": "s"}) as one:
        offer(one, place)
        yield one


@pytest.fixture(scope="module")
def shared(place: Path) -> Iterator[Link]:
    """One launcher for all tests that leave its processes as they were."""
    with Link() as one:
        offer(one, place)
        yield one
