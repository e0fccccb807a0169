import datetime as dt
import os
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509

from tq.errors import ConfigurationError
from tq.net import tls
from tq.net.join import parse_join
from tq.net.token import parse_token
from tq.server import serve
from tq.server.operation.identity import check_identity, new_token, open_identity, own_identity
from tq.server.settings import Settings
from tq.store import files

NOW = dt.datetime(2026, 3, 1, 12, 0, tzinfo=dt.UTC)
FILES = {"ca.key", "ca.pem", "cert.key", "cert.pem"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "identity"


def modes(place: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()}


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLObject:
    """Do a handshake in memory and return the client's end."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = client.wrap_bio(down, up, server_hostname=tls.SERVER_NAME)
    there = server.wrap_bio(up, down, server_side=True)
    for end in (here, there, here, there):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert here.version() == "TLSv1.3"
    return here


def test_the_first_start_makes_keys_that_nobody_else_can_read(place: Path) -> None:
    before = os.umask(0)
    try:
        open_identity(place, NOW)
    finally:
        os.umask(before)

    assert {path.name for path in place.iterdir()} == FILES
    assert modes(place) == {0o600}
    assert stat.S_IMODE(place.stat().st_mode) == 0o700


def test_the_ca_stays_and_the_certificate_is_new_at_each_start(place: Path) -> None:
    first = open_identity(place, NOW)
    leaf = (place / "cert.pem").read_bytes()

    second = open_identity(place, NOW + dt.timedelta(days=400))

    assert second.ca_sha256 == first.ca_sha256
    assert second.ca_pem == first.ca_pem
    assert (place / "cert.pem").read_bytes() != leaf
    assert second.expires > first.expires


def test_two_servers_have_two_cas(tmp_path: Path) -> None:
    assert open_identity(tmp_path / "a", NOW).ca_sha256 != open_identity(tmp_path / "b", NOW).ca_sha256


def test_the_certificate_is_for_the_name_tq_and_for_servers_only(place: Path) -> None:
    identity = open_identity(place, NOW)
    leaf = certificate(place / "cert.pem")

    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["tq"]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert leaf.not_valid_before_utc < NOW - dt.timedelta(hours=12)  # clients whose clocks are behind
    assert leaf.not_valid_after_utc == identity.expires > NOW + dt.timedelta(days=365)


def test_a_client_with_the_ca_believes_the_server_by_the_strictest_rules(place: Path) -> None:
    identity = open_identity(place, dt.datetime.now(dt.UTC))
    client = tls.client_context(identity.ca_pem)
    client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT

    assert shake_hands(identity.context, client).selected_alpn_protocol() == "tq/1"


def test_a_client_of_another_server_does_not(tmp_path: Path) -> None:
    now = dt.datetime.now(dt.UTC)
    here, other = open_identity(tmp_path / "a", now), open_identity(tmp_path / "b", now)

    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(here.context, tls.client_context(other.ca_pem))


@pytest.mark.parametrize("years,why", [(-3, "expired"), (3, "not yet valid")])
def test_a_clock_that_is_years_off_is_named(place: Path, years: int, why: str) -> None:
    identity = open_identity(place, dt.datetime.now(dt.UTC) + dt.timedelta(days=365 * years))

    with pytest.raises(ssl.SSLCertVerificationError) as caught:
        shake_hands(identity.context, tls.client_context(identity.ca_pem))

    error = tls.explained(caught.value, "tq://queue:7878")
    assert why in str(error)
    assert "clock" in error.hint


def test_a_start_that_was_cut_off_leaves_nothing_that_hinders_the_next(place: Path) -> None:
    half = place.with_name("identity.new")
    half.mkdir()
    (half / "ca.key").write_text("half a key")

    open_identity(place, NOW)

    assert not half.exists()


def test_a_certificate_that_was_cut_off_is_made_anew(place: Path) -> None:
    open_identity(place, NOW)
    (place / "cert.key.new").write_text("half a key")
    (place / "cert.pem").unlink()

    open_identity(place, NOW)

    assert {path.name for path in place.iterdir()} == FILES


@pytest.mark.parametrize("name", ["ca.key", "ca.pem"])
def test_a_missing_ca_is_never_replaced_in_silence(place: Path, name: str) -> None:
    open_identity(place, NOW)
    (place / name).unlink()

    with pytest.raises(ConfigurationError) as caught:
        open_identity(place, NOW)

    assert "backup" in caught.value.hint
    assert not (place / name).exists()


@pytest.mark.parametrize("name", ["ca.key", "ca.pem"])
def test_a_damaged_ca_is_never_replaced_in_silence(place: Path, name: str) -> None:
    open_identity(place, NOW)
    (place / name).write_bytes(b"-----BEGIN")

    with pytest.raises(ConfigurationError, match="cannot be read"):
        open_identity(place, NOW)

    assert (place / name).read_bytes() == b"-----BEGIN"


def test_a_key_of_another_ca_is_noticed(tmp_path: Path, place: Path) -> None:
    open_identity(place, NOW)
    open_identity(tmp_path / "other", NOW)
    (tmp_path / "other" / "ca.key").rename(place / "ca.key")

    with pytest.raises(ConfigurationError, match="belong together"):
        open_identity(place, NOW)


@pytest.mark.parametrize("name,mode", [("", 0o750), ("", 0o701), ("ca.key", 0o640), ("ca.key", 0o604)])
def test_what_others_can_read_is_refused(place: Path, name: str, mode: int) -> None:
    open_identity(place, NOW)
    (place / name).chmod(mode)

    with pytest.raises(ConfigurationError, match="open to other users") as caught:
        open_identity(place, NOW)

    assert "chmod" in caught.value.hint


def test_a_ca_that_others_can_change_is_refused(place: Path) -> None:
    open_identity(place, NOW)
    (place / "ca.pem").chmod(0o666)

    with pytest.raises(ConfigurationError, match=f"other users may write to {place / 'ca.pem'} "):
        check_identity(place)


@pytest.mark.parametrize("name", ["ca.key", "cert.key.new"])
def test_a_link_laid_in_the_way_is_not_followed(place: Path, tmp_path: Path, name: str) -> None:
    open_identity(place, NOW)
    target = tmp_path / "target"
    target.write_text("untouched")
    (place / name).unlink(missing_ok=True)
    (place / name).symlink_to(target)

    if name == "ca.key":
        with pytest.raises(ConfigurationError, match="is not a key"):
            open_identity(place, NOW)
    else:
        open_identity(place, NOW)

    assert target.read_text() == "untouched"


def test_a_key_is_never_written_over_something_else(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("untouched")
    (tmp_path / "dangling").symlink_to(tmp_path / "elsewhere")

    for name in ("key", "dangling"):
        with pytest.raises(FileExistsError):
            files.write_new(tmp_path / name, [b"a key"])

    assert (tmp_path / "key").read_text() == "untouched"
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_in_the_place_of_the_directory_is_refused(place: Path) -> None:
    place.write_text("")

    with pytest.raises(ConfigurationError, match="is not a directory"):
        open_identity(place, NOW)


def test_the_directory_of_another_user_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_identity(place, NOW)
    owner = place.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)

    with pytest.raises(ConfigurationError, match="belongs to user"):
        open_identity(place, NOW)


def test_new_tokens_differ_and_make_a_join_string(place: Path) -> None:
    identity = open_identity(place, NOW)
    one, other = new_token("worker"), new_token("worker")

    assert one.text != other.text
    assert one.id != other.id
    assert parse_token(one.text).role == "worker"
    assert parse_join(str(identity.join(one))) == (identity.ca_sha256, one.text)


def test_a_certificate_that_the_administrator_brings_is_used(place: Path) -> None:
    now = dt.datetime.now(dt.UTC)
    made = open_identity(place, now)

    own = own_identity(place / "cert.pem", place / "cert.key", now)

    assert own.ca_sha256 == made.ca_sha256
    assert shake_hands(own.context, tls.client_context(own.ca_pem))
    (place / "cert.key").chmod(0o606)
    with pytest.raises(ConfigurationError, match=f"other users may write to {place / 'cert.key'} "):
        own_identity(place / "cert.pem", place / "cert.key", now)


def test_a_certificate_for_another_name_is_refused(place: Path) -> None:
    open_identity(place, NOW)

    with pytest.raises(ConfigurationError, match="not for the name tq") as caught:
        own_identity(place / "ca.pem", place / "ca.key", NOW)

    assert "DNS:tq" in caught.value.hint


def test_a_certificate_that_no_client_would_accept_is_refused(place: Path) -> None:
    open_identity(place, NOW)
    for now in (NOW - dt.timedelta(days=9), NOW + dt.timedelta(days=826)):
        with pytest.raises(ConfigurationError, match=r"are valid from .* to .* UTC"):
            own_identity(place / "cert.pem", place / "cert.key", now)

    leaf, end, _ = (place / "cert.pem").read_text().partition("-----END CERTIFICATE-----\n")
    (place / "leaf.pem").write_text(leaf + end)
    with pytest.raises(ConfigurationError, match="does not end with the certificate of its CA"):
        own_identity(place / "leaf.pem", place / "cert.key", NOW)


@pytest.mark.parametrize("certificate,key", [("ca.pem", "cert.key"), ("no.pem", "cert.key"), ("cert.pem", "cert.pem")])
def test_a_pair_that_does_not_fit_is_refused(place: Path, certificate: str, key: str) -> None:
    open_identity(place, NOW)

    with pytest.raises(ConfigurationError, match="cannot use the certificate"):
        own_identity(place / certificate, place / key, NOW)


def test_a_start_with_a_wrong_certificate_leaves_nothing_that_hinders_the_next(tmp_path: Path) -> None:
    wrong = Settings(tmp_path, tmp_path / "state", cert=tmp_path / "no.pem", key=tmp_path / "no.key")

    with pytest.raises(ConfigurationError, match="cannot use the certificate"):
        serve._identity(wrong)

    assert serve._identity(Settings(tmp_path, tmp_path / "state")).ca_pem
