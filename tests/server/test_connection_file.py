"""The file by which programs of the same user find the server."""

import json
import os
import stat
from pathlib import Path

import pytest

from tq.errors import ConfigurationError
from tq.net.token import make_token
from tq.server.operation.connection_file import Connection, keep_token, local_url, read_token, remove_files, write_files
from tq.store.lock import lock_directory

TOKEN = make_token("admin", bytes(39))
CONNECTION = Connection("tq://127.0.0.1:7878", "PEM", TOKEN, "0.0.0.0:7878")


def test_both_files_are_private_and_the_copy_names_the_directory(tmp_path: Path) -> None:
    data, state = tmp_path / "data", tmp_path / "state" / "tq"
    data.mkdir()
    write_files(CONNECTION, data, state)
    fields = {"url": CONNECTION.url, "listen": "0.0.0.0:7878", "ca": "PEM", "token": TOKEN.text, "pid": os.getpid()}

    assert json.loads((data / "connection.json").read_text()) == fields
    assert json.loads((state / "connection.json").read_text()) == {**fields, "data": str(data)}
    assert stat.S_IMODE((data / "connection.json").stat().st_mode) == 0o600
    remove_files(data, state)
    assert list(data.iterdir()) == list(state.iterdir()) == []


def test_a_file_of_another_server_is_left_alone(tmp_path: Path) -> None:
    theirs = tmp_path / "connection.json"
    theirs.write_text(json.dumps({"pid": 1}))
    (tmp_path / "x").mkdir()
    (tmp_path / "x/connection.json").write_text("no json")
    remove_files(tmp_path, tmp_path / "x")

    assert theirs.exists()


def test_a_second_server_leaves_the_file_of_the_first_and_its_end_changes_nothing(tmp_path: Path) -> None:
    first, second, state = (tmp_path / name for name in ("first", "second", "state"))
    first.mkdir()
    second.mkdir()
    with lock_directory(first):
        assert write_files(CONNECTION, first, state) is None
        theirs = (state / "connection.json").read_bytes()
        assert write_files(CONNECTION, second, state) == first
        assert (second / "connection.json").exists()
        remove_files(second, state)
        assert (state / "connection.json").read_bytes() == theirs
        assert write_files(CONNECTION, first, state) is None
    assert write_files(CONNECTION, second, state) is None  # the first was killed: its file is nobody's
    assert json.loads((state / "connection.json").read_text())["data"] == str(second)


def test_a_file_that_a_killed_server_left_for_the_same_directory_by_another_name_is_its_own(tmp_path: Path) -> None:
    data, link = tmp_path / "data", tmp_path / "link"
    data.mkdir()
    link.symlink_to(data)
    with lock_directory(data):
        write_files(CONNECTION, link, tmp_path)
        assert write_files(CONNECTION, data, tmp_path) is None
    assert json.loads((tmp_path / "connection.json").read_text())["data"] == str(data)


@pytest.mark.parametrize("said", ["", "[]", '{"data": 7}', '{"data": ""}', '{"data": "/\\u0000"}', '{"data": "/none"}'])
def test_a_file_that_makes_no_sense_is_written_anew(tmp_path: Path, said: str) -> None:
    (tmp_path / "connection.json").write_text(said)
    (tmp_path / "data").mkdir()
    assert write_files(CONNECTION, tmp_path / "data", tmp_path) is None
    assert json.loads((tmp_path / "connection.json").read_text())["url"] == CONNECTION.url


def test_a_server_whose_user_has_no_home_is_found_by_its_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert write_files(CONNECTION, tmp_path, tmp_path / "file/state") is None
    said = capsys.readouterr().err
    assert "not_announced" in said
    assert f"TQ_DATA={tmp_path}" in said
    assert json.loads((tmp_path / "connection.json").read_text())["url"] == CONNECTION.url
    remove_files(tmp_path, tmp_path / "file/state")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_server_is_not_announced_where_others_could_announce_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, state = tmp_path / "data", tmp_path / "open" / "state"
    data.mkdir()
    state.mkdir(parents=True)
    (state / "connection.json").write_text(json.dumps({"data": str(tmp_path / "other")}))
    before = (state / "connection.json").read_text()
    state.parent.chmod(0o777)
    (tmp_path / "other").mkdir()
    with lock_directory(tmp_path / "other"):
        assert write_files(CONNECTION, data, state) is None
    said = capsys.readouterr().err
    assert "not_announced" in said
    assert f"chmod go-w {state.parent}; `tq` finds this server with TQ_DATA={data}" in said
    assert (state / "connection.json").read_text() == before
    assert json.loads((data / "connection.json").read_text())["url"] == CONNECTION.url


@pytest.mark.parametrize(
    "host,url",
    [
        ("127.0.0.1", "tq://127.0.0.1:1"),
        ("0.0.0.0", "tq://127.0.0.1:1"),
        ("::", "tq://[::1]:1"),
        ("10.0.0.7", "tq://10.0.0.7:1"),
    ],
)
def test_the_address_is_one_that_this_machine_reaches(host: str, url: str) -> None:
    assert local_url(host, 1) == url


def test_the_directorys_own_token_is_kept_privately(tmp_path: Path) -> None:
    assert read_token(tmp_path) is None
    (tmp_path / "identity").mkdir()
    keep_token(tmp_path, TOKEN)

    assert read_token(tmp_path) == TOKEN
    assert stat.S_IMODE((tmp_path / "identity/admin.token").stat().st_mode) == 0o600
    (tmp_path / "identity/admin.token").chmod(0o602)
    with pytest.raises(ConfigurationError, match="may write to"):
        read_token(tmp_path)
    (tmp_path / "identity/admin.token").chmod(0o600)
    (tmp_path / "identity/admin.token").write_text("damaged")
    assert read_token(tmp_path) is None
