"""What another user of this machine has put there, or could, is refused by its name before anything is done."""

import os
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.cli.fake import TOKEN, FakeServer
from tests.cli.test_backup import DATA, parts
from tests.support.backups import make_backup
from tq.client import target
from tq.core import vocabulary as v
from tq.net import tls

OTHER = 65_534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def state(server: FakeServer, place: Path) -> Path:
    server.says[v.List] = lambda _: v.Page(())
    return place / ".local/state/tq"


@as_root
@pytest.mark.parametrize("name", ["connection.json", ".", "..", "../.."])
def test_a_connection_file_of_another_user_is_asked_nothing(
    run: Run, server: FakeServer, state: Path, name: str
) -> None:
    assert run("ls").status == 0
    server.asked.clear()
    owned = Path(os.path.normpath(state / name))
    os.chown(owned, OTHER, OTHER)
    ran = run("submit", "--env", "SECRET=1", "--", "true")
    assert (ran.status, ran.out, server.asked) == (78, "", [])
    assert f"{owned} belongs to user {OTHER}" in ran.err
    assert "XDG_STATE_HOME" in ran.err


@pytest.mark.parametrize("name", ["connection.json", ".", "..", "../.."])
def test_nor_is_one_that_others_may_write(run: Run, server: FakeServer, state: Path, name: str) -> None:
    opened = Path(os.path.normpath(state / name))
    opened.chmod(0o777)
    ran = run("ls")
    assert (ran.status, server.asked) == (78, [])
    assert f"other users may write to {opened} (mode 0777)" in ran.err
    assert f"chmod go-w {opened}\n" in ran.err
    doctor = run("doctor", "-o", "jsonl")
    assert (doctor.status, doctor.out.count(f"chmod go-w {opened}")) == (1, 1)


@as_root
def test_root_asks_the_server_of_another_user_whose_directory_it_names(
    run: Run, server: FakeServer, state: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = place / "srv"
    data.mkdir(mode=0o700)
    server.write_connection(data)
    for path in (data, data / "connection.json"):
        os.chown(path, OTHER, OTHER)
    (state / "connection.json").unlink()
    monkeypatch.setenv("TQ_DATA", str(data))
    assert run("ls").status == 0
    assert target.of_directory(data, os.environ).url == server.url
    monkeypatch.delenv("TQ_DATA")
    monkeypatch.setenv("XDG_DATA_HOME", str(place))
    data.rename(place / "tq")
    ran = run("ls")
    assert (ran.status, f"{place / 'tq'} belongs to user {OTHER}" in ran.err) == (78, True)


def test_who_is_told_all_by_variables_needs_no_file(
    run: Run, server: FakeServer, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.chmod(0o777)
    ca = state.parent / "ca.pem"
    ca.write_text(server.identity.ca_pem)
    for name, value in (("TQ_URL", server.url), ("TQ_TOKEN", TOKEN)):
        monkeypatch.setenv(name, value)
    assert run("ls").status == 78
    monkeypatch.setenv("TQ_CA", str(ca))
    assert run("ls").status == 0


@pytest.mark.parametrize("what", ["config", "TQ_TOKEN_FILE", "TQ_CA"])
def test_a_file_that_says_whom_to_trust_is_looked_at_in_the_same_way(
    run: Run, server: FakeServer, state: Path, place: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    file = place / ".config/tq/config.toml" if what == "config" else place / "file"
    file.parent.mkdir(parents=True, exist_ok=True)
    if what == "config":
        file.write_text(f'url = "{server.url}"\n')
    else:
        file.write_text(TOKEN if what == "TQ_TOKEN_FILE" else server.identity.ca_pem)
        monkeypatch.setenv(what, str(file))
    assert run("ls").status == 0
    server.asked.clear()
    file.chmod(0o622)
    ran = run("ls")
    assert (ran.status, server.asked) == (78, [])
    assert f"other users may write to {file} (mode 0622)" in ran.err


def test_up_starts_nothing_where_others_may_write(run: Run, place: Path) -> None:
    (place / ".local").mkdir()
    (place / ".local").chmod(0o777)
    ran = run("up")
    assert (ran.status, list((place / ".local").iterdir())) == (78, [])
    assert f"other users may write to {place / '.local'} " in ran.err


@as_root
def test_a_backup_is_not_written_where_another_user_could_put_another_in_its_place(
    run: Run, server: FakeServer, place: Path
) -> None:
    server.says[v.Backup] = lambda _: parts(DATA)
    kept = place / "kept"
    kept.mkdir()
    kept.chmod(0o777)
    ran = run("backup", "kept/b.tar")
    assert (ran.status, list(kept.iterdir()), server.asked) == (78, [], [])
    assert f"other users may write to {kept} " in ran.err
    kept.chmod(0o1777)
    assert run("backup", "kept/b.tar").status == 0
    (kept / ".c.tar.part").touch()
    os.chown(kept / ".c.tar.part", OTHER, OTHER)
    ran = run("backup", "kept/c.tar")
    assert (ran.status, f".c.tar.part belongs to user {OTHER}" in ran.err) == (78, True)


@as_root
def test_a_backup_of_another_user_is_restored_with_a_warning_that_names_it(run: Run, place: Path) -> None:
    make_backup(place / "old", place / "b.tar")
    ran = run("restore", "b.tar", "--data", "new")
    assert (ran.status, "warning" in ran.err) == (0, False)
    os.chown(place / "b.tar", OTHER, OTHER)
    ran = run("-q", "restore", "b.tar", "--data", "again")
    assert ran.status == 0
    assert ran.err.startswith("tq: warning: ")
    assert f"b.tar belongs to user {OTHER}" in ran.err
    assert "keys and tokens" in ran.err
    assert run("restore", "missing.tar", "--data", "third").status == 78


@as_root
def test_a_ca_is_not_kept_through_another_users_directory(tmp_path: Path) -> None:
    (tmp_path / "cas").mkdir()
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / "cas" / f"{'0' * 64}.{os.getpid()}").symlink_to(precious)
    os.chown(tmp_path / "cas", OTHER, OTHER)
    tls.keep(tmp_path, "0" * 64, "PEM")
    assert precious.read_text() == "precious"
    assert [path.is_symlink() for path in (tmp_path / "cas").iterdir()] == [True]


def test_a_store_where_others_may_write_is_neither_made_nor_checked(run: Run, place: Path) -> None:
    (place / "srv").mkdir()
    (place / "srv").chmod(0o777)
    for words in (("server", "--check"), ("server", "--listen", "127.0.0.1:0"), ("store", "check")):
        ran = run(*words, "--data", "srv/tq")
        assert (ran.status, list((place / "srv").iterdir())) == (78, [])
    for words in (("server", "--check"), ("server", "--listen", "127.0.0.1:0")):
        assert f"other users may write to {place / 'srv'} " in run(*words, "--data", "srv/tq").err
    (place / "srv" / "tq").mkdir(mode=0o700)
    (place / "srv" / "tq" / "format").touch()
    assert f"other users may write to {place / 'srv'} " in run("store", "check", "--data", "srv/tq").err
