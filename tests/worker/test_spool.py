"""Results on the disk."""

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import msgspec
import pytest
import trio

from tests.support.fake_server import eventually
from tests.support.worker_state import ref
from tq.core.model.task import Cause
from tq.core.vocabulary import End
from tq.store import files
from tq.wire import messages as m
from tq.worker import instructions as i
from tq.worker import spool_writer
from tq.worker.spool import Damaged, Kept, Spool, unpacked
from tq.worker.spool_writer import write_down
from tq.worker.state_dir import Last, settle


def end(job: int) -> End:
    return End(ref(job), 1, 0, 10, b"result")


def report(delivery: int, *jobs: int) -> i.Keep:
    return i.Keep(m.Ended(delivery, tuple(end(job) for job in jobs)))


def output(job: int, data: bytes, stream: int = 1) -> m.Output:
    return m.Output(ref(job), stream, 0, data)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    (tmp_path / "spool").mkdir()
    return Spool(tmp_path / "spool")


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_what_is_kept_is_found_by_the_next_one_until_it_is_forgotten(spool: Spool) -> None:
    spool.keep(7, [report(3, 1, 2), report(11, 3)])
    assert Spool(spool.path).load().kept == {3: Kept(7, (end(1), end(2))), 11: Kept(7, (end(3),))}
    spool.forget(3)
    spool.forget(3)
    assert Spool(spool.path).load().kept == {11: Kept(7, (end(3),))}


def test_the_names_of_what_is_kept_and_of_what_goes_aside_are_durable(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    durable: dict[str, set[str]] = {}
    monkeypatch.setattr(
        files, "sync_directory", lambda path: durable.update({path.name: {one.name for one in path.iterdir()}})
    )

    spool.keep(7, [report(3, 1), report(4, 2)])
    assert durable["spool"] == {"000000000003", "000000000004"}
    spool.orphan(7, i.Aside((end(5),)))
    assert durable["orphaned"] == {"0000000000000007-1"}


def test_what_is_kept_says_who_kept_it(tmp_path: Path) -> None:
    Spool(tmp_path / "spool", 5).keep(7, [report(1, 1), i.Keep(m.HandedBack(2, (ref(2),), Cause.DRAIN))])
    assert {one.worker for one in Spool(tmp_path / "spool").load().kept.values()} == {5}


def test_what_was_kept_before_anybody_said_so_is_read(spool: Spool) -> None:
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(Kept(7, (end(1),), worker=5)))
    whole = msgspec.msgpack.encode(fields[:6])
    (spool.path / "000000000001").write_bytes(whole + crc32(whole).to_bytes(4, "big"))
    assert spool.load().kept == {1: Kept(7, (end(1),))}


def test_what_was_kept_before_it_said_why_is_read(spool: Spool) -> None:
    back = Kept(7, (), (ref(1),), Cause.DRAIN, worker=5)
    whole = msgspec.msgpack.encode(msgspec.msgpack.decode(msgspec.msgpack.encode(back))[:7])
    (spool.path / "000000000001").write_bytes(whole + crc32(whole).to_bytes(4, "big"))
    assert spool.load().kept == {1: back}


def test_a_handback_is_kept_with_all_that_it_says_and_output_with_what_it_belongs_to(spool: Spool) -> None:
    back = m.HandedBack(4, (ref(1), ref(2)), Cause.WORKER_TROUBLE, "no descriptors")
    assert all(getattr(back, field.name) != field.default for field in msgspec.structs.fields(back)), "a new one, too"
    outputs = (output(1, b"one"), output(2, b"two", stream=2))
    spool.keep(7, [i.Keep(back, outputs), i.Keep(m.Ended(5, (end(3),)), (output(3, b"three"),))])
    kept = Spool(spool.path).load().kept
    assert (kept[4].message(4), kept[4].outputs) == (back, outputs)
    assert (kept[5].message(5), kept[5].outputs) == (m.Ended(5, (end(3),)), (output(3, b"three"),))


def test_output_beyond_the_bound_is_dropped_and_said_and_its_result_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spool = Spool(tmp_path / "spool", output_bytes_max=10)
    large = [i.Keep(m.Ended(number, (end(number),)), (output(number, b"123456"),)) for number in (1, 2, 3)]
    spool.keep(7, large[:2])
    assert {number: len(one.outputs) for number, one in spool.load().kept.items()} == {1: 1, 2: 0}
    assert "spool_output_dropped" in capsys.readouterr().err
    spool.forget(1)
    spool.keep(7, large[2:])
    assert {number: (len(one.ends), len(one.outputs)) for number, one in spool.load().kept.items()} == {
        2: (1, 0),
        3: (1, 1),
    }
    again = Spool(tmp_path / "spool", output_bytes_max=10)
    again.load()
    again.keep(7, [i.Keep(m.Ended(4, (end(4),)), (output(4, b"12345"),))])
    assert again.load().kept[4].outputs == (), "what was there before counts"


def test_where_the_disk_has_no_room_for_output_the_result_is_kept_alone(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write = files.replace

    def small_disk(path: Path, data: bytes) -> None:
        if len(data) > 1_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, data)

    monkeypatch.setattr(files, "replace", small_disk)
    spool.keep(7, [i.Keep(m.Ended(1, (end(1),)), (output(1, bytes(5_000)),))])
    assert spool.load().kept == {1: Kept(7, (end(1),))}
    assert "No space left" in capsys.readouterr().err


def test_a_half_written_file_is_no_result(spool: Spool) -> None:
    (spool.path / "000000000004.new").write_bytes(b"half")
    assert spool.load().kept == {}
    assert list(spool.path.iterdir()) == []


def test_a_damaged_file_costs_itself_only_and_stays_for_people_to_look_at(spool: Spool) -> None:
    spool.keep(7, [report(1, 1), report(2, 2)])
    damaged = spool.path / "000000000001"
    damaged.write_bytes(damaged.read_bytes()[:-3])
    left = spool.load()
    assert (set(left.kept), left.damaged) == ({2}, ["000000000001"])
    assert (spool.path / "orphaned" / "damaged-000000000001-1").exists()
    assert spool.load().damaged == []


def test_no_flipped_bit_makes_another_result(spool: Spool) -> None:
    spool.keep(7, [report(1, 1)])
    (path,) = spool.path.iterdir()
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        raw = bytearray(whole)
        raw[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Damaged):
            unpacked(bytes(raw))
    for length in range(len(whole)):
        with pytest.raises(Damaged):
            unpacked(whole[:length])
    stranger = msgspec.msgpack.encode([1, "text"])
    with pytest.raises(Damaged, match="Expected"):
        unpacked(stranger + crc32(stranger).to_bytes(4, "big"))


def test_files_of_before_there_was_a_checksum_are_read(spool: Spool) -> None:
    old = Kept(7, (end(1),), outputs=(output(1, b"one"),))
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(old))
    (spool.path / "000000000001").write_bytes(msgspec.msgpack.encode(fields[:6]))
    (spool.path / "000000000002").write_bytes(msgspec.msgpack.encode(fields[:6])[:-1])
    (spool.path / "000000000003").write_bytes(msgspec.msgpack.encode(fields[:3]))  # the first ones had reports alone
    assert spool.load() == ({1: old, 3: Kept(7, (end(1),))}, ["000000000002"], [])


@pytest.fixture
def no_room_aside(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The disk is so full that no name fits into any directory."""
    for what in ("mkdir", "rename"):
        monkeypatch.setattr(Path, what, full)
    return monkeypatch


def test_a_damaged_file_stays_under_its_number_where_there_is_no_room_aside(
    spool: Spool, no_room_aside: pytest.MonkeyPatch
) -> None:
    (spool.path / "000000000003").write_bytes(b"damaged")
    (spool.path / "000000000004.new").write_bytes(b"half")
    assert spool.load() == ({}, ["000000000003"], [])
    assert spool.number_last == 3
    no_room_aside.undo()
    assert spool.load().damaged == ["000000000003"]
    assert [path.name for path in spool.path.iterdir()] == ["orphaned"]


def test_a_file_that_cannot_go_aside_still_counts_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path / "spool", output_bytes_max=10)
    spool.keep(7, [i.Keep(m.Ended(1, (end(1),)), (output(1, b"123456"),))])
    with monkeypatch.context() as full:
        full.setattr(Path, "mkdir", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
        write_down(spool, [(7, i.Aside((end(1),), 1))])
    spool.keep(8, [i.Keep(m.Ended(2, (end(2),)), (output(2, b"12345"),))])
    assert {number: (one.lineage, len(one.outputs)) for number, one in spool.load().kept.items()} == {
        1: (7, 1),
        2: (8, 0),
    }


def test_results_of_another_lineage_are_kept_apart(spool: Spool) -> None:
    paths = [spool.orphan(7, i.Aside((end(job),))) for job in (1, 2)]
    assert len(set(paths)) == 2
    assert all(path.parent.name == "orphaned" for path in paths)
    assert spool.load().kept == {}


def test_the_disk_is_written_in_the_order_of_the_instructions(spool: Spool) -> None:
    kept, gone = report(1, 1), i.Forget(1)
    write_down(spool, [(7, kept), (7, gone)])
    assert spool.load().kept == {}
    write_down(spool, [(7, gone), (7, kept), (7, report(2, 2)), (7, i.Aside((end(3),)))])
    assert set(spool.load().kept) == {1, 2}
    assert len(list((spool.path / "orphaned").iterdir())) == 1


def test_what_is_kept_goes_aside_as_it_is_and_what_is_not_with_its_output(spool: Spool) -> None:
    output = m.Output(ref(1), 1, 0, b"text")
    spool.keep(7, [report(1, 1)._replace(outputs=(output,))])
    write_down(spool, [(7, i.Aside((end(1),), 1)), (7, i.Aside((end(2),), 2, (output,)))])

    assert spool.load() == ({}, [], [])
    aside = [unpacked(path.read_bytes()) for path in (spool.path / "orphaned").iterdir()]
    assert sorted(aside, key=lambda one: one.ends[0].attempt.job) == [
        Kept(7, (end(1),), outputs=(output,)), Kept(7, (end(2),), outputs=(output,))
    ]  # fmt: skip


def test_a_result_goes_aside_alone_where_there_is_no_room_for_its_output(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = files.replace

    def full(path: Path, data: bytes) -> None:
        if len(data) > 10_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, data)

    monkeypatch.setattr(files, "replace", full)
    path = spool.orphan(7, i.Aside((end(1),), 0, (m.Output(ref(1), 1, 0, bytes(20_000)),)))

    assert unpacked(path.read_bytes()) == Kept(7, (end(1),))


def test_a_disk_that_fails_is_said_and_stops_nothing(spool: Spool, capsys: pytest.CaptureFixture[str]) -> None:
    spool.path.rmdir()
    spool.path.write_text("in the way")
    write_down(spool, [(7, report(1, 1)), *((7, i.Forget(number)) for number in range(100))])
    said = capsys.readouterr().err
    assert said.count("spool_failed") == 2, "not a line for each"
    assert "times=100" in said


def test_a_spool_is_made_with_the_first_result_once_there_is_room(
    tmp_path: Path, no_room_aside: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path / "new")
    assert spool.load() == ({}, [], [])
    with pytest.raises(OSError, match="No space"):
        spool.keep(7, [report(1, 1), report(2, 2), report(3, 3)])
    spool.forget(2)
    with pytest.raises(OSError, match="No space"):
        spool.catch_up()
    no_room_aside.undo()
    assert (spool.behind, spool.catch_up(), spool.behind) == (2, 2, 0)
    assert Spool(tmp_path / "new").load().kept == {1: Kept(7, (end(1),)), 3: Kept(7, (end(3),))}


async def test_what_there_was_no_room_for_is_written_when_there_is_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = []

    def refuse(path: Path, data: bytes) -> None:
        refused.append(path.name)
        full()

    interpreter = SimpleNamespace(to_disk=[(7, report(1, 1))], disk_work=trio.Event())
    interpreter.disk_work.set()
    monkeypatch.setattr(spool_writer, "_AGAIN_S", 0.01)
    with settle(tmp_path) as home:
        spool = Spool(home.directory / "spool")
        home.speak(Last(5, 6, 7))
        async with trio.open_nursery() as nursery:
            with monkeypatch.context() as trouble:
                trouble.setattr(files, "replace", refuse)
                nursery.start_soon(spool_writer.run_disk, interpreter, spool, home)
                await eventually(lambda: len(refused) > 6)
            await eventually(lambda: not spool.behind and not home.is_behind)
            nursery.cancel_scope.cancel()
    assert refused[:3] == ["last.json", "000000000001", "last.json"], "who speaks comes first"
    said = capsys.readouterr().err
    assert [said.count(word) for word in ("cannot_remember", "spool_failed", "spool_caught_up")] == [1, 1, 1]
    with settle(tmp_path) as home:
        assert home.last == Last(5, 6, 7)
        assert set(Spool(home.path / "spool").load().kept) == {1}


def test_what_a_worker_that_ends_could_not_write_is_said_to_be_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interpreter: Any = SimpleNamespace(to_disk=[(7, report(1, 1)), (7, report(2, 2))])
    with settle(tmp_path) as home:
        spool = Spool(home.directory / "spool")
        with monkeypatch.context() as trouble:
            trouble.setattr(files, "replace", full)
            spool_writer.finish(interpreter, spool, home)
        assert "results_lost results=2 " in capsys.readouterr().err
        spool_writer.finish(interpreter, spool, home)
    assert "results_lost" not in capsys.readouterr().err


def test_what_cannot_be_read_now_is_not_damaged(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    spool.keep(7, [report(1, 1)])
    with monkeypatch.context() as trouble:
        trouble.setattr(Path, "read_bytes", fail)
        assert spool.load() == ({}, [], ["000000000001"])
    assert spool.number_last == 1
    assert set(spool.load().kept) == {1}


def test_what_a_full_disk_has_no_room_for_costs_nothing_beside_it(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A result of 128 KiB may not fit where a hundred small ones do."""
    write = files.replace

    def full(path: Path, data: bytes) -> None:
        if len(data) > 10_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, data)

    spool.keep(7, [report(1, 1)])
    monkeypatch.setattr(files, "replace", full)
    large = i.Keep(m.Ended(2, (End(ref(2), 1, 0, 10, bytes(20_000)),)))
    write_down(spool, [(7, large), (7, report(3, 3)), (7, i.Forget(1)), (7, i.Aside((end(4),)))])

    assert spool.load().kept == {3: Kept(7, (end(3),))}
    assert len(list((spool.path / "orphaned").iterdir())) == 1
    assert "spool_failed" in capsys.readouterr().err


def test_what_cannot_be_written_whole_leaves_nothing_on_a_disk_that_is_full(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as trouble:
        trouble.setattr(files.os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            files.replace(spool.path / "1", b"result")
    assert list(spool.path.iterdir()) == []


def test_a_place_aside_is_looked_for_where_it_is_free(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands may go aside at once."""
    looks = 0
    exists = Path.exists

    def counted(path: Path) -> bool:
        nonlocal looks
        looks += path.parent.name == "orphaned"
        return exists(path)

    spool.keep(7, [report(number, number) for number in range(1, 101)])
    monkeypatch.setattr(Path, "exists", counted)
    for number in range(1, 101):
        spool.set_aside(number, 7)
    assert looks == 100


def test_results_that_are_put_aside_replace_no_others_though_some_were_taken_away(spool: Spool) -> None:
    first, second = (spool.orphan(7, i.Aside((end(job),))) for job in (1, 2))
    first.unlink()
    third = spool.orphan(7, i.Aside((end(3),)))
    assert {Kept(7, (end(2),)), Kept(7, (end(3),))} == {unpacked(path.read_bytes()) for path in {second, third}}


def test_damaged_files_of_one_name_replace_no_others(spool: Spool) -> None:
    for text in (b"one", b"two"):
        (spool.path / "000000000005").write_bytes(text)
        assert spool.load().damaged == ["000000000005"]
    assert {path.read_bytes() for path in (spool.path / "orphaned").iterdir()} == {b"one", b"two"}
