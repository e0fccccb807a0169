"""What docs/python.md shows is run as written: its module, its shell lines, its programs."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from tests.server.process import ServerProcess, running_server, running_worker, wait_until
from tq.core.vocabulary import Workers

PAGE = (Path(__file__).parents[2] / "docs" / "python.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def indented(heading: str) -> str:
    """Return the first indented block after a heading."""
    part = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    block = re.search(r"(?:^    .*\n|^\n(?=    ))+", part, re.MULTILINE)
    assert block is not None
    return dedent(block[0])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server, and a worker that allows the page's module."""
    place = tmp_path_factory.mktemp("page")
    (place / "sums.py").write_text(indented("A module, and a worker that allows it"))
    with running_server(place) as server, running_worker(server, "--allow", "sums", place=place):
        with server.client() as client:
            wait_until(lambda: client.ask(Workers()).items)  # type: ignore[union-attr]
        yield server


def test_the_page_has_its_programs() -> None:
    assert len(PROGRAMS) == 5


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_of_the_page_runs_as_written(program: str, server: ServerProcess, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], env=server.environ, cwd=tmp_path, capture_output=True,
        text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_the_shell_lines_of_the_page_say_what_they_say(server: ServerProcess, tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-e", "-c", indented("From the shell")], env={**server.environ, "PATH": path}, cwd=tmp_path,
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert '"value":3,' in done.stdout
    assert [re.search(r'"value":"(line \d)"', line)[1] for line in done.stdout.splitlines()[-3:]] == [  # type: ignore[index]
        "line 1", "line 2", "line 3",
    ]  # fmt: skip
