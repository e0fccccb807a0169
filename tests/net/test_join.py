import subprocess
import sys

import pytest

from tq.errors import ConfigurationError, ProtocolError, Unauthorised, Unreachable
from tq.net.address import Address, parse_address
from tq.net.join import Join, Pinning, ca_sha256, parse_join
from tq.net.token import RANDOM_BYTES, make_token
from tq.wire.connection import Connection
from tq.wire.messages import CA, Beat, GetCA, Message, Refused

# Any bytes do for a certificate: only their hash counts here.
PEM = "-----BEGIN CERTIFICATE-----\nAAECAwQFBgcICQ==\n-----END CERTIFICATE-----\n"
SHA256 = "1f825aa2f0020ef7cf91dfa30da4668d791c5d4824fc8e41354b89ec05795ab3"
TOKEN = make_token("worker", bytes(range(RANDOM_BYTES))).text
TEXT = f"tq1.{SHA256}.{TOKEN}"


def answer(*messages: Message) -> bytes:
    return Connection().send(messages)


def test_a_join_string_is_the_hash_of_the_ca_and_a_token() -> None:
    assert parse_join(TEXT) == Join(SHA256, TOKEN)
    assert str(parse_join(TEXT)) == TEXT


def test_line_breaks_and_blanks_of_a_mail_do_not_matter() -> None:
    assert parse_join(f"  {TEXT[:40]}\r\n {TEXT[40:]}\n") == Join(SHA256, TOKEN)


@pytest.mark.parametrize(
    "text,why",
    [
        ("", "malformed"),
        ("tq1", "malformed"),
        (TOKEN, "malformed"),
        (TEXT[:-1], "damaged"),
        (TEXT.replace(SHA256, SHA256[:-1]), "malformed"),
        (TEXT.replace("tqw_", "tqa_"), "checksum"),
        (TEXT.replace("tq1.", "tq2."), "newer"),
        (TEXT + "é", "damaged"),
    ],
)
def test_a_wrong_join_string_is_refused_without_being_repeated(text: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why) as caught:
        parse_join(text)

    assert TOKEN[15:40] not in str(caught.value) + caught.value.hint
    assert "tq join" in caught.value.hint


def test_a_join_string_shows_no_secret_when_it_is_printed() -> None:
    assert TOKEN not in repr(parse_join(TEXT))


@pytest.mark.parametrize(
    "url,host,port",
    [
        ("tq://127.0.0.1:7878", "127.0.0.1", 7878),
        ("tq://queue.example", "queue.example", 7878),
        ("tq://queue.example:1/", "queue.example", 1),
        ("tq://[::1]:65535", "::1", 65_535),
        ("tq://[fe80::1%eth0]", "fe80::1%eth0", 7878),
        (" tq://localhost\n", "localhost", 7878),
    ],
)
def test_an_address_is_host_and_port(url: str, host: str, port: int) -> None:
    assert parse_address(url) == Address(host, port)
    assert parse_address(str(parse_address(url))) == Address(host, port)


@pytest.mark.parametrize(
    "url", ["", "tq://", "http://a", "tq:a", "tq://a:0", "tq://a:65536", "tq://a:b", "tq://a/b", "tq://u@a", "tq://::1"]
)
def test_what_is_no_address_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_address(url)

    assert "tq://HOST:PORT" in caught.value.hint


def test_the_question_for_the_ca_is_the_whole_first_message() -> None:
    assert Connection().receive_data(Pinning(SHA256).question) == [GetCA()]


def test_the_ca_with_the_right_hash_is_believed() -> None:
    stream, pinning = answer(CA(PEM.encode())), Pinning(SHA256.upper())

    assert ca_sha256(PEM) == SHA256
    *before, last = [pinning.receive_data(stream[at : at + 1]) for at in range(len(stream))]
    assert (set(before), last) == ({None}, PEM)


def test_what_stands_behind_the_ca_is_not_believed_with_it() -> None:
    other = PEM.replace("AAEC", "AAED")

    assert Pinning(SHA256).receive_data(answer(CA((PEM + other).encode()))) == PEM
    with pytest.raises(Unauthorised):
        Pinning(SHA256).receive_data(answer(CA((other + PEM).encode())))


@pytest.mark.parametrize(
    "stream,error",
    [
        (answer(CA(PEM.replace("AAEC", "AAED").encode())), Unauthorised),
        (answer(CA(b"")), ProtocolError),
        (answer(CA(b"\xff")), ProtocolError),
        (answer(CA(b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----")), Unauthorised),
        (answer(Beat()), ProtocolError),
        (answer(Refused("not_done", "stopping")), ProtocolError),
        (b"HTTP/1.1 400 Bad Request\r\n", ProtocolError),
        (b"", Unreachable),
    ],
    ids=["another CA", "nothing", "no text", "no base64", "another message", "refused", "another protocol", "the end"],
)
def test_nothing_else_is_believed(stream: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        Pinning(SHA256).receive_data(stream)


@pytest.mark.parametrize("module", ["tq.net.tls", "tq.net.join", "tq.net.token", "tq.net.address"])
def test_what_the_blocking_client_needs_is_cheap_to_import(module: str) -> None:
    heavy = {"trio", "cryptography", "asyncio", "logging"}
    code = f"import sys, {module}; sys.exit(bool({heavy} & sys.modules.keys()))"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
