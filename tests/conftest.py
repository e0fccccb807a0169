"""What every test has: an empty home of its own, and hypothesis without deadlines.

No test may find, or change, what belongs to whoever runs it: their server, tokens, configuration.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings

# Machines are slow at times; a deadline would make that a failure. `print_blob` gives the line that replays one.
# Who develops tries other examples each time; CI the same ones, so that it speaks of the change that it is asked about.
settings.register_profile(
    "tq", deadline=None, print_blob=True, derandomize="CI" in os.environ, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tq")

# A shell makes what it puts in the background deaf to Ctrl-C, and children inherit that: the tests' must hear it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


SLOW_S_MAX: Final = 600.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give slow tests more time: a busy machine takes several times as long, and a timeout ends the whole run."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_S_MAX))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each process of `-n` a stretch of the tests in their order, so that those of a module share its server."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make an empty home directory and take every TQ_ and XDG_ variable away; the tests' children inherit that."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("TQ_", "XDG_"))]:
            patch.delenv(name)
        patch.setenv("HOME", str(home))
        os.umask(0o022)  # one of 002 would let a group write to what tests make: tq refuses that, and rightly
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)  # or each of a thousand starts would compile all of tq
        yield home
