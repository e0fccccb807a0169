"""Settings are checked once, and say what is wrong with them; the log has the level that was asked for."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tq.errors import BadRequest, ConfigurationError
from tq.net.log import log, set_level
from tq.server.settings import Settings, check_settings

GOOD = Settings(data=Path("/data"), state=Path("/state"))


@pytest.fixture(autouse=True)
def usual_level() -> Iterator[None]:
    yield
    set_level("info")


def test_what_is_in_order_passes() -> None:
    check_settings(GOOD)
    assert GOOD.beat_ms == 5_000


@pytest.mark.parametrize(
    "fields,text",
    [
        ({"port": 65_536}, "port"),
        ({"port": -1}, "port"),
        ({"heartbeat_s": 0.0}, "heartbeat"),
        ({"heartbeat_s": 1e9}, "heartbeat"),
        ({"heartbeat_s": float("nan")}, "heartbeat"),
        ({"data": Path("data")}, "absolute"),
        ({"data": Path("/caf\udce9")}, "UTF-8"),
        ({"state": Path("state")}, "absolute"),
        ({"cert": Path("/cert.pem")}, "belong together"),
        ({"log_level": "loud"}, "loud"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], text: str) -> None:
    with pytest.raises((BadRequest, ConfigurationError), match=text):
        check_settings(GOOD._replace(**fields))


def test_records_below_the_level_are_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    log("usual")
    log("detail", level="debug")
    set_level("warning")
    log("usual_again")
    log("trouble", level="error")

    assert [line.split()[2] for line in capsys.readouterr().err.splitlines()] == ["usual", "trouble"]
