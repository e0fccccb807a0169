"""A backup is read with distrust: whatever is wrong with the file is said, and nothing is written."""

import hashlib
import io
import random
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.backups import make_backup, tree
from tq import __version__
from tq.errors import ConfigurationError, StoreDamaged, TqError
from tq.store import archive, restore

LINEAGE = 77


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    place = tmp_path_factory.mktemp("whole")
    make_backup(place / "data", place / "backup.tar", turns=40)
    return (place / "backup.tar").read_bytes()


@pytest.fixture
def refused(tmp_path: Path) -> Callable[[bytes], TqError]:
    """Restore these bytes, and return why they were refused; nothing may be there then."""

    def restore_bytes(raw: bytes) -> TqError:
        path = tmp_path / "bad.tar"
        path.write_bytes(raw)
        with pytest.raises((StoreDamaged, ConfigurationError)) as caught:
            restore.restore(path, tmp_path / "data", LINEAGE)
        assert not (tmp_path / "data").exists()
        assert caught.value.hint
        return caught.value

    return restore_bytes


def members(raw: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        return {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]


def packed(contents: dict[str, bytes], *infos: tarfile.TarInfo) -> bytes:
    """Return an archive with these members, `infos` without contents behind the first, and a true seal."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for number, (name, data) in enumerate(contents.items()):
            if name == archive.SEAL:
                continue
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
            if number == 0:
                for extra in infos:
                    tar.addfile(extra)
        seal = "".join(
            f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in contents.items() if name != archive.SEAL
        )
        info = tarfile.TarInfo(archive.SEAL)
        info.size = len(seal)
        tar.addfile(info, io.BytesIO(seal.encode()))
    raw = out.getvalue().rstrip(b"\0")
    return raw + bytes(-len(raw) % 512) + bytes(1024)


def test_it_is_a_plain_archive_that_other_programs_check(whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "b.tar").write_bytes(whole)
    subprocess.run(["tar", "xf", "b.tar"], cwd=tmp_path, check=True)
    done = subprocess.run(["sha256sum", "-c", archive.SEAL], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "db/CURRENT: OK" in done.stdout


def test_the_helper_of_these_tests_packs_what_is_accepted(whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "b.tar").write_bytes(packed(members(whole)))
    assert archive.check(tmp_path / "b.tar").sequence == 40


def test_a_file_that_ends_early_is_refused_wherever_it_ends(whole: bytes, refused: Callable[[bytes], TqError]) -> None:
    edges = [at for at in range(512, len(whole), 512) if whole[at + 257 : at + 262] == b"ustar"]
    dice = random.Random(3)
    for size in [0, 1, 511, *edges, *(edge + 512 for edge in edges), *dice.sample(range(len(whole)), 60)]:
        refused(whole[:size])
    assert "ends too early" in refused(whole[: len(whole) // 2]).message
    assert "does not end" in refused(whole[:-512]).message
    assert "does not end" in refused(whole + b"\0").message


def test_every_flipped_bit_is_noticed_or_costs_nothing(whole: bytes, tmp_path: Path) -> None:
    """A mode or a time in a header, and padding, say nothing; all else must be as it was written."""
    path, dice, noticed = tmp_path / "flipped.tar", random.Random(4), 0
    contents = members(whole)
    for at in dice.sample(range(len(whole)), 400):
        raw = bytearray(whole)
        raw[at] ^= 1 << dice.randrange(8)
        path.write_bytes(raw)
        try:
            archive.check(path)
        except (StoreDamaged, ConfigurationError):
            noticed += 1
        else:
            assert members(bytes(raw)) == contents
    assert noticed > 200


def test_a_flipped_bit_in_a_table_file_is_named_and_nothing_is_written(
    whole: bytes, refused: Callable[[bytes], TqError]
) -> None:
    contents = members(whole)
    name = max((name for name in contents if name.endswith(".sst")), key=lambda name: len(contents[name]))
    raw = bytearray(whole)
    raw[whole.index(contents[name]) + len(contents[name]) // 2] ^= 1
    error = refused(bytes(raw))
    assert isinstance(error, StoreDamaged)
    assert name in error.message


@pytest.mark.parametrize(
    "raw", [b"", b"hello", bytes(10_240), random.Random(5).randbytes(4_096), packed({"a.txt": b"hello"})]
)
def test_another_file_is_no_backup(raw: bytes, refused: Callable[[bytes], TqError]) -> None:
    error = refused(raw)
    assert isinstance(error, ConfigurationError)
    assert "is not a backup of tq" in error.message


def test_a_newer_format_says_who_made_it(whole: bytes, refused: Callable[[bytes], TqError]) -> None:
    for field in (b'"format"', b'"store_format"'):
        contents = members(whole)
        head = contents[archive.HEAD].replace(field + b": 1", field + b": 2").replace(__version__.encode(), b"7.8.9")
        error = refused(packed(contents | {archive.HEAD: head}))
        assert isinstance(error, ConfigurationError)
        assert "made by tq 7.8.9" in error.message


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/tmp/evil",
        "db/../../evil",
        "db/evil",
        "identity/../x.pem",
        "db/000001.sst/x",
        "evil\n",
        "server.lock",
    ],
)
def test_a_member_of_another_name_is_refused(name: str, whole: bytes, refused: Callable[[bytes], TqError]) -> None:
    head, *rest = members(whole).items()
    assert "it has a member" in refused(packed(dict([head, (name, b"x"), *rest]))).message


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_a_member_that_is_no_file_is_refused(kind: bytes, whole: bytes, refused: Callable[[bytes], TqError]) -> None:
    info = tarfile.TarInfo("db/000099.sst")
    info.type = kind
    info.linkname = "/etc/passwd"
    assert "is not a plain file" in refused(packed(members(whole), info)).message


def test_a_member_that_comes_twice_or_is_missing_is_refused(whole: bytes, refused: Callable[[bytes], TqError]) -> None:
    twice = packed(members(whole), tarfile.TarInfo("format"))
    assert "it has a member 'format'" in refused(twice).message
    for name in ("format", "watermark", "db/CURRENT"):
        contents = members(whole)
        del contents[name]
        assert f"{name} is missing" in refused(packed(contents)).message


def test_a_seal_that_tells_of_other_members_is_refused(whole: bytes, refused: Callable[[bytes], TqError]) -> None:
    seal = members(whole)[archive.SEAL]
    at = whole.rindex(seal)
    for other in (seal.replace(b"db/CURRENT", b"db/CURRANT"), bytes(len(seal)), seal[::-1]):
        assert "not those that were written" in refused(whole[:at] + other + whole[at + len(seal) :]).message


def test_a_store_that_is_not_at_the_commit_it_names_is_refused(whole: bytes, tmp_path: Path) -> None:
    contents = members(whole)
    contents[archive.HEAD] = contents[archive.HEAD].replace(b'"sequence": 40', b'"sequence": 41')
    (tmp_path / "b.tar").write_bytes(packed(contents))
    with pytest.raises(StoreDamaged, match="does not stand at commit 41"):
        restore.restore(tmp_path / "b.tar", tmp_path / "data", LINEAGE)
    assert tree(tmp_path / "data") == ["server.lock"]


def test_a_backup_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        restore.restore(tmp_path / "nothing", tmp_path / "data", LINEAGE)
    assert list(tmp_path.iterdir()) == []
