"""The blocking connection: who is asked, who is believed, and what happens when it is lost."""

import json
import socket
from pathlib import Path

import msgspec
import pytest

from tests.cli.conftest import Run
from tests.cli.fake import TOKEN, FakeServer
from tq import limits
from tq.core import vocabulary as v
from tq.errors import AlreadyEnded, BadRequest, NotDone, TaskNotFound, VersionMismatch
from tq.net.token import RANDOM_BYTES, make_token
from tq.server.operation.identity import Identity, open_identity


@pytest.fixture(autouse=True)
def answers(server: FakeServer) -> None:
    server.says[v.List] = lambda _: v.Page(({"id": "1", "state": "queued"},))
    server.says[v.Cancel] = lambda _: v.Acted(1)


def test_no_server_at_first_is_said_at_once(run: Run, server: FakeServer) -> None:
    server.close()
    ran = run("ls")
    assert (ran.status, ran.out) == (69, "")
    assert ran.err.startswith(f"tq: no server answers at {server.url}: Connection refused\nhint: ")


def test_no_server_elsewhere_is_not_to_be_started_here(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TQ_TOKEN", TOKEN)
    monkeypatch.setenv("TQ_CA", "0" * 64)
    ran = run("ls", "--url", "tq://127.0.0.2:1")
    assert ran.status == 69
    assert ran.err.startswith("tq: no server answers at tq://127.0.0.2:1: Connection refused\nhint: is the address")
    assert "tq up" not in ran.err


def test_a_server_that_accepts_and_says_nothing_is_no_other_program(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is overloaded, or the way to it loses large packets: the first of them are those of the handshake."""
    monkeypatch.setenv("TQ_TOKEN", TOKEN)
    monkeypatch.setenv("TQ_CA", "0" * 64)
    monkeypatch.setattr(limits, "handshake_s", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"tq://127.0.0.1:{silent.getsockname()[1]}"
        ran = run("ls", "--url", url)
    assert (ran.status, ran.out) == (69, "")
    assert ran.err.startswith(f"tq: {url} accepts connections, but does not answer\nhint: is it overloaded, or")


def test_no_server_known_is_69_with_a_way_out(run: Run, server: FakeServer, place: Path) -> None:
    (place / ".local/state/tq/connection.json").unlink()
    assert run("ls") == (
        69,
        "",
        "tq: no server is running here\nhint: start one with `tq up`, or set TQ_URL and TQ_JOIN\n",
    )


@pytest.mark.parametrize("variable", ["TQ_JOIN", "TQ_TOKEN"])
def test_who_was_given_a_token_alone_is_told_that_the_address_is_missing(
    run: Run, server: FakeServer, place: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    (place / ".local/state/tq/connection.json").unlink()
    token = make_token("submit", bytes(RANDOM_BYTES)).text
    monkeypatch.setenv(variable, f"tq1.{'0' * 64}.{token}" if variable == "TQ_JOIN" else token)
    hint = "set the address, too, as in TQ_URL=tq://HOST:7878"
    assert run("ls") == (69, "", f"tq: no address of a server is known: {variable} has none in it\nhint: {hint}\n")


def test_a_wrong_token_is_4_and_not_repeated(run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TQ_TOKEN", "tqa_secretsecret")
    ran = run("ls")
    assert (ran.status, ran.out) == (4, "")
    assert "secretsecret" not in ran.err
    assert server.asked == []


@pytest.mark.parametrize("token", ["\udcff", "a\nb", "ü", "x" * 9_000, "\x1b[31m"])
def test_what_can_be_no_token_is_not_sent(
    run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("TQ_TOKEN", token)
    ran = run("ls")
    assert (ran.status, server.hellos) == (4, [])
    assert ran.err.startswith("tq: what TQ_TOKEN says is not a token of tq\nhint: copy it whole")


@pytest.mark.parametrize("variable", ["TQ_TOKEN_FILE", "TQ_CA"])
def test_a_file_without_an_end_is_not_read_to_its_end(
    run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "/dev/zero")
    ran = run("ls")
    assert (ran.status, server.hellos) == (78, [])
    assert "/dev/zero has more than 65536 bytes" in ran.err


def test_a_server_without_a_known_token_is_4(run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TQ_URL", "tq://127.0.0.1:1")
    monkeypatch.setenv("TQ_CA", server.identity.ca_pem)
    assert run("ls").status == 4


@pytest.mark.parametrize(
    "error", [NotDone("the server is stopping"), VersionMismatch("it speaks 3 to 4, this is 1 to 1")]
)
def test_a_refused_connection_has_the_status_of_its_reason(run: Run, server: FakeServer, error) -> None:
    server.refuses = error
    assert run("ls") == (error.exit_status, "", f"tq: {error.message}\n")


def test_another_ca_is_never_told_the_token(run: Run, server: FakeServer, tmp_path: Path, identity: Identity) -> None:
    from datetime import UTC, datetime

    server.identity = open_identity(tmp_path / "other", datetime.now(UTC))
    ran = run("ls")
    assert ran.status == 4
    assert "not the one that is expected" in ran.err
    assert server.hellos == []


def test_what_is_no_tq_is_69(run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as plain:
        plain.settimeout(10)
        import threading

        def answer() -> None:
            peer, _ = plain.accept()
            with peer:
                peer.recv(1 << 16)
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        monkeypatch.setenv("TQ_URL", f"tq://127.0.0.1:{plain.getsockname()[1]}")
        monkeypatch.setenv("TQ_TOKEN", TOKEN)
        monkeypatch.setenv("TQ_CA", server.identity.ca_pem)
        ran = run("ls")
        thread.join()
    assert ran.status == 69
    assert "is not a tq server: it does not speak TLS" in ran.err


def test_a_silent_server_is_given_up_after_three_beats(run: Run, server: FakeServer) -> None:
    server.beat_ms, server.is_mute = 30, True
    ran = run("ls", "--connect-timeout", "0")
    assert ran.status == 69
    assert "no sign of life for 3 beats" in ran.err
    assert server.beats >= 2


def test_a_change_whose_answer_never_comes_is_an_unknown_outcome(run: Run, server: FakeServer) -> None:
    server.cuts = 1_000
    assert run("cancel", "1", "--connect-timeout", "50ms").status == 74


def test_a_lost_connection_is_made_again_silently(run: Run, server: FakeServer) -> None:
    server.cuts = 3
    assert run("ls", "-q") == (0, "1\n", "")


def test_a_server_that_comes_back_elsewhere_is_found(
    run: Run, server: FakeServer, place: Path, identity: Identity
) -> None:
    moved = FakeServer(identity)
    moved.says = server.says
    moved.epoch = 2

    def move(_: v.List) -> list[object]:
        server.says = {v.List: lambda _: v.Page(({"id": "2", "state": "queued"},))}
        moved.says = server.says
        moved.write_connection(place / ".local/state/tq")
        return [...]

    server.says[v.List] = move
    try:
        assert run("ls", "-q") == (0, "2\n", "")
        assert [hello.epoch for hello in moved.hellos] == [1]
    finally:
        moved.close()


def test_an_older_epoch_of_the_same_store_is_not_believed(run: Run, server: FakeServer) -> None:
    server.epoch = 5

    def go_back(_: v.List) -> list[object]:
        server.epoch = 4
        return [...]

    server.says[v.List] = go_back
    ran = run("ls")
    assert ran.status == 78
    assert "epoch 4" in ran.err


def test_a_first_join_needs_only_the_join_string(
    run: Run, server: FakeServer, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / ".local/state/tq/connection.json").unlink()
    token = make_token("submit", bytes(RANDOM_BYTES))
    server.token = token.text
    monkeypatch.setenv("TQ_URL", server.url)
    monkeypatch.setenv("TQ_JOIN", str(server.identity.join(token)))
    assert run("ls", "-q") == (0, "1\n", "")
    kept = place / f".local/state/tq/cas/{server.identity.ca_sha256}.pem"
    assert kept.read_text() == server.identity.ca_pem
    kept.write_text("damaged")
    assert run("ls", "-q") == (0, "1\n", "")
    assert kept.read_text() == server.identity.ca_pem


def test_a_join_string_of_another_server_is_refused(
    run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = make_token("submit", bytes(RANDOM_BYTES))
    monkeypatch.setenv("TQ_URL", server.url)
    monkeypatch.setenv("TQ_JOIN", f"tq1.{'0' * 64}.{token.text}")
    ran = run("ls")
    assert ran.status == 4
    assert token.text not in ran.err
    assert server.hellos == []


@pytest.mark.parametrize(
    "name, value, status",
    [
        ("TQ_URL", "http://x", 78),
        ("TQ_JOIN", "tq1.x.y", 78),
        ("TQ_TOKEN_FILE", "/nonexistent", 78),
        ("TQ_CA", "/nonexistent", 78),
        ("TQ_CONNECT_TIMEOUT", "x", 2),
    ],
)
def test_a_wrong_setting_is_said(
    run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch, name, value, status
) -> None:
    monkeypatch.setenv(name, value)
    ran = run("ls")
    assert (ran.status, ran.out) == (status, "")
    assert ran.err.startswith("tq: ")


@pytest.mark.parametrize("verb", ["ls", "config"])
@pytest.mark.parametrize("variable", ["TQ_URL", "TQ_TOKEN_FILE", "TQ_CA"])
def test_a_secret_in_the_wrong_place_is_said_and_not_repeated(
    run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch, variable: str, verb: str
) -> None:
    token = make_token("submit", bytes(range(RANDOM_BYTES)))
    for secret in (token.text, str(server.identity.join(token))):
        monkeypatch.setenv(variable, secret)
        ran = run(verb)
        assert ran.status == 78
        assert variable in ran.err
        assert token.text not in ran.err + ran.out
    assert server.hellos == []


def test_the_order_is_flag_variable_file_connection(run: Run, server: FakeServer, place: Path, monkeypatch) -> None:
    def source() -> tuple[str, str]:
        item = next(i for i in msgspec.json.decode(run("config", "-o", "json", *flag).out)["items"] if i["id"] == "url")
        return item["value"], item["source"]

    flag: list[str] = []
    assert source() == (server.url, str(place / ".local/state/tq/connection.json"))
    config = place / ".config/tq/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('url = "tq://from-file"\n')
    assert source() == ("tq://from-file", str(config))
    monkeypatch.setenv("TQ_URL", "tq://from-variable")
    assert source() == ("tq://from-variable", "TQ_URL")
    flag = ["--url", "tq://from-flag"]
    assert source() == ("tq://from-flag", "--url")


@pytest.mark.parametrize(
    "text, said",
    [
        ("url = ", "Invalid value"),
        ('tokenfile = "t"\n', "no setting 'tokenfile'\nhint: there are url, token, token_file, ca, join"),
        ('[server]\nurl = "tq://queue"\n', "no setting 'server'"),
        ("ca = 7\n", "ca is not text"),
    ],
)
def test_a_damaged_configuration_is_said(run: Run, place: Path, server: FakeServer, text: str, said: str) -> None:
    config = place / ".config/tq/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(text)
    ran = run("ls")
    assert ran.status == 78
    assert str(config) in ran.err
    assert said in ran.err


def test_config_never_shows_a_secret(run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    token = make_token("submit", bytes(range(RANDOM_BYTES)))
    monkeypatch.setenv("TQ_JOIN", str(server.identity.join(token)))
    for form in ("table", "json"):
        out = run("config", "-o", form).out
        assert token.text not in out
        assert token.id in out


def test_a_data_directory_of_another_server_is_not_mixed_up(
    run: Run, server: FakeServer, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TQ_DATA", str(place / "elsewhere"))
    assert run("ls").status == 69


def test_a_request_is_never_larger_than_a_frame() -> None:
    assert limits.body_bytes_max < limits.frame_bytes_max
    assert limits.piece_bytes_max < limits.frame_bytes_max


def test_what_was_done_before_the_cut_is_no_refusal(run: Run, server: FakeServer) -> None:
    """The first asking is carried out and its answer lost; the second finds it done."""
    done: list[object] = []

    def carry_out(error: Exception, answer: v.Answer):
        def say(command: object) -> object:
            if command in done:
                raise error
            done.append(command)
            return [...]

        return say

    server.says[v.Cancel] = carry_out(AlreadyEnded("1 had ended already"), v.Acted(1))
    assert run("cancel", "1").status == 0
    assert run("cancel", "1").status == 1
    server.says[v.RevokeToken] = carry_out(TaskNotFound("no token"), v.Done("x"))
    assert run("token", "revoke", "x").status == 0
    assert run("token", "revoke", "x").status == 1
    server.says[v.CreateToken] = carry_out(BadRequest("token exists"), v.Done("x"))
    ours = lambda: next(command.id for command in server.asked if isinstance(command, v.CreateToken))  # noqa: E731
    server.says[v.Tokens] = lambda asked: v.Page(({"id": ours()},)) if asked.page else v.Page((), "next")
    ran = run("token", "create", "--role", "read")
    assert (ran.status, ran.out[:4]) == (0, "tqr_")


def test_join_prints_a_string_that_parses_and_the_line_that_uses_it(run: Run, server: FakeServer) -> None:
    from tq.net.join import parse_join

    server.says[v.CreateToken] = lambda _: v.Done("x")
    ran = run("join")
    assert parse_join(ran.out).ca_sha256 == server.identity.ca_sha256
    assert f"TQ_URL={server.url} TQ_JOIN={ran.out.strip()} tq worker" in ran.err
    assert server.asked[0].role == "worker"
    assert "only this machine finds it; start it with --listen" in ran.err


@pytest.mark.parametrize("listen, is_elsewhere", [("0.0.0.0", True), ("[::]", True), ("127.0.0.1", False)])
def test_join_tells_others_the_machines_name_where_the_server_listens_for_them(
    run: Run, server: FakeServer, place: Path, monkeypatch: pytest.MonkeyPatch, listen: str, is_elsewhere: bool
) -> None:
    server.says[v.CreateToken] = lambda _: v.Done("x")
    monkeypatch.setattr(socket, "gethostname", lambda: "queue")
    file = place / ".local/state/tq/connection.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "listen": f"{listen}:{server.port}"}))
    ran = run("join")
    url = f"tq://queue:{server.port}" if is_elsewhere else server.url
    assert f"TQ_URL={url} TQ_JOIN={ran.out.strip()} tq worker" in ran.err
    assert ("--listen" in ran.err, f"where {url} is not found" in ran.err) == (not is_elsewhere, is_elsewhere)
    assert json.loads(run("join", "-o", "json").out)["url"] == url
    monkeypatch.setenv("TQ_URL", server.url)  # the file speaks of it all the same
    assert url in run("join").err
