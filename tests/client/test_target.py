"""Where a server is looked for again: by who stays with the one that was found first."""

import json
import pwd
from pathlib import Path
from typing import Any

import pytest

from tq.client.target import Target, directories, find, find_again
from tq.errors import TqError, Unreachable

CA = "-----BEGIN CERTIFICATE-----"
Environ = dict[str, str]


@pytest.fixture
def environ(tmp_path: Path) -> Environ:
    return {"HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}


def serve(data: Path, environ: Environ, port: int, **more: Any) -> None:
    """Write what a server on this directory writes when it listens."""
    for directory, where in ((data, {}), (Path(environ["XDG_STATE_HOME"]) / "tq", {"data": str(data)})):
        directory.mkdir(parents=True, exist_ok=True)
        said = {"url": f"tq://127.0.0.1:{port}", "ca": CA, "token": "tqa_first", "pid": 1, **where, **more}
        (directory / "connection.json").write_text(json.dumps(said))


def again(first: Target, environ: Environ, url: str = "") -> tuple[str, str]:
    found = find_again(first, {"url": url}, environ)
    return found.url, found.token


def test_what_came_from_the_file_is_what_the_file_says_now(tmp_path: Path, environ: Environ) -> None:
    serve(tmp_path / "one", environ, 1001)
    first = find({}, environ)
    serve(tmp_path / "one", environ, 1002, token="tqa_second")
    assert again(first, environ) == ("tq://127.0.0.1:1002", "tqa_second")


def test_another_server_of_this_user_is_not_taken_for_the_first(tmp_path: Path, environ: Environ) -> None:
    serve(tmp_path / "one", environ, 1001)
    first = find({}, environ)
    serve(tmp_path / "two", environ, 1002)
    assert find({}, environ).url == "tq://127.0.0.1:1002"
    assert again(first, environ)[0] == "tq://127.0.0.1:1001"
    (tmp_path / "one" / "connection.json").unlink()
    with pytest.raises(Unreachable):
        again(first, environ)


def test_a_file_that_is_away_moves_nobody_to_the_default_address(tmp_path: Path, environ: Environ) -> None:
    serve(tmp_path / "one", environ, 1001)
    environ |= {"TQ_TOKEN": "tqa_mine", "TQ_CA": CA}
    first = find({}, environ)
    assert (first.url, first.token) == ("tq://127.0.0.1:1001", "tqa_mine")
    for path in tmp_path.rglob("connection.json"):
        path.unlink()
    with pytest.raises(Unreachable):
        again(first, environ)


def test_what_was_said_explicitly_stays(tmp_path: Path, environ: Environ) -> None:
    environ |= {"TQ_TOKEN": "tqa_mine", "TQ_CA": CA}
    first = find({"url": "tq://127.0.0.1:5"}, environ)
    serve(tmp_path / "one", environ, 1001)
    assert again(first, environ, "tq://127.0.0.1:5") == ("tq://127.0.0.1:5", "tqa_mine")


def test_an_explicit_address_whose_file_now_speaks_of_another_is_no_find(tmp_path: Path, environ: Environ) -> None:
    serve(tmp_path / "one", environ, 1001)
    first = find({"url": "tq://127.0.0.1:1001"}, environ)
    serve(tmp_path / "one", environ, 1002)
    with pytest.raises(TqError):
        again(first, environ, "tq://127.0.0.1:1001")


def test_who_has_no_entry_in_passwd_is_at_home_at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    def getpwuid(_uid: int) -> None:
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", getpwuid)
    assert directories({}).state == Path("/.local/state/tq")
