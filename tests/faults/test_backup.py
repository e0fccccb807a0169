"""Backups of a real server: under load, killed in the middle, restored while workers hold the old one's work."""

import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.server.process import command
from tests.support import processes
from tests.support.backups import rows, tree
from tests.support.store import all_rows, read_store
from tests.support.town import Town, town
from tq.core.model.tables import JOB
from tq.core.vocabulary import Backup, Forget, Where

pytestmark = pytest.mark.slow
LARGE: Final = os.urandom(4 << 20)


def back_up(here: Town, name: str) -> Path:
    done = here.tq("backup", name)
    assert done.status == 0, done
    return here.place / name


def restored(here: Town, backup: Path, name: str) -> Path:
    """Restore a backup, and assert that its store is clean."""
    data = here.place / name
    done = here.tq("restore", str(backup), "--data", str(data))
    assert done.status == 0, done
    done = here.tq("store", "check", "--data", str(data), "-o", "json")
    assert (done.status, json.loads(done.out)["problems"]) == (0, [])
    return data


def serve(here: Town, data: Path) -> None:
    """Kill the server, and let the next one serve another directory at the same address."""
    here.server.kill()
    here.server.data = data
    for environ in (here.server.environ, here.environ):
        environ["TQ_DATA"] = str(data)
    here.server.start()


@contextmanager
def repeated(*loops: Callable[[], None]) -> Iterator[None]:
    """Call each of these again and again in a thread of its own while the block lasts; raise what they raised."""
    is_over, wrong = threading.Event(), list[BaseException]()

    def run(loop: Callable[[], None]) -> None:
        try:
            while not is_over.is_set():
                loop()
        except BaseException as error:  # noqa: BLE001 - shown below
            wrong.append(error)

    threads = [threading.Thread(target=run, args=(loop,)) for loop in loops]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join(processes.PATIENCE_S)
    assert not wrong, wrong


def test_a_backup_of_a_quiet_server_has_every_row(tmp_path: Path) -> None:
    with town(tmp_path) as here:
        here.worker()
        job = here.submit("sh", "-c", "head -c 300000 /dev/zero | tr '\\0' x; echo; cat", options=["--stdin"])
        failed = here.submit("sh", "-c", "exit 7", options=["--retries", "0"])
        held = here.submit("true", options=["--array", "1-1000", "--hold", "--name", "held"])
        assert (here.wait(job), here.wait(failed)) == (0, 7)
        printed = here.tq("logs", job).out
        data = restored(here, back_up(here, "b.tar"), "new")
        here.server.stop()
        assert rows(data) == rows(here.place / "data")
        serve(here, data)
        assert here.tq("logs", job).out == printed
        assert len(printed) > 300_000
        assert (here.show(failed)["exit_code"], here.show(held)["name"]) == (7, "held")
        assert here.tq("release", held).status == 0
        assert here.wait(held) == 0


def test_backups_while_jobs_are_submitted_run_and_are_forgotten(tmp_path: Path) -> None:
    acknowledged, forgotten = list[int](), list[int]()
    with town(tmp_path) as here, here.client() as submitter, here.client() as janitor:
        here.worker(slots=2)

        def submit() -> None:
            number = len(acknowledged)
            tags = ("passing",) if number % 3 == 0 else ()
            answer: Any = submitter.ask(
                command("echo", "x" * 2_000, name=f"n{number}", size=20, is_array=True, tags=tags)
            )
            acknowledged.append(int(answer.id))

        def forget() -> None:
            answer: Any = janitor.ask(Forget(where=Where(states=("succeeded",), tag="passing")))
            forgotten.append(answer.done)

        before: list[int] = []
        with repeated(submit, forget):
            for number in range(3):
                processes.until(lambda number=number: len(acknowledged) > 30 * (number + 1), "there is load")
                before.append(len(acknowledged))
                back_up(here, f"{number}.tar")
        for number, count in enumerate(before):
            data = restored(here, here.place / f"{number}.tar", f"new-{number}")
            found = job_names(data)
            kept = [f"n{one}" for one in range(count) if one % 3]
            assert set(kept) <= set(found), "what was acknowledged before the backup is in it"
        assert not (here.place / "data/backup").exists()
        assert sum(forgotten) > 5
        jobs = [str(job) for job in found.values()]
        serve(here, data)
        assert here.wait(*jobs) == 0
        here.check_store()


def job_names(data: Path) -> dict[str, int]:
    with read_store(data) as store:
        return {job.name: key[0] for key, job in all_rows(store, JOB)}


def fill(here: Town, mib: int = 24) -> None:
    """Give the store so much that a backup takes a while."""
    for number in range(mib // 4):
        done = here.tq("submit", "--hold", "--stdin", "--name", f"large-{number}", "--", "cat", stdin=LARGE)
        assert done.status == 0, done


def test_a_server_killed_in_a_backup_leaves_nothing_and_makes_the_next_one(tmp_path: Path) -> None:
    with town(tmp_path) as here:
        fill(here)
        client = here.client()
        stream = client.subscribe(Backup)
        first: Any = next(stream)
        assert first.size_bytes > len(LARGE)
        assert (here.server.data / "backup").exists()
        here.server.kill()
        assert (here.server.data / "backup").exists()
        here.server.start()
        assert not (here.server.data / "backup").exists()
        size = sum(len(part.data) for part in stream if not isinstance(part, str))  # the client begins anew by itself
        assert size >= first.size_bytes
        client.close()
        restored(here, back_up(here, "b.tar"), "new")
        here.check_store()


def test_a_client_killed_in_a_backup_leaves_no_file_of_that_name_and_the_server_goes_on(tmp_path: Path) -> None:
    with town(tmp_path) as here:
        fill(here)
        process = here.popen("backup", "b.tar")
        part = here.place / ".b.tar.part"
        processes.until(lambda: part.exists() and part.stat().st_size > 100_000, "it has begun")
        process.kill()
        process.communicate()
        assert not (here.place / "b.tar").exists()
        processes.until(lambda: not (here.server.data / "backup").exists(), "the server has cleared up")
        restored(here, back_up(here, "b.tar"), "new")
        assert not part.exists()
        assert here.status()["server"]["internal_errors"] == 0


def test_a_server_that_is_asked_to_stop_in_a_backup_stops(tmp_path: Path) -> None:
    with town(tmp_path) as here:
        fill(here)
        with here.client(patience_s=0) as client:
            stream = client.subscribe(Backup)
            next(stream)
            assert here.server.stop() == 0
        assert "backup" not in tree(here.server.data)
        here.check_store()


def test_one_backup_at_a_time_and_admins_only(tmp_path: Path) -> None:
    with town(tmp_path) as here:
        fill(here)
        with here.client() as client:
            stream = client.subscribe(Backup)
            next(stream)
            done = here.tq("backup", "b.tar")
            assert (done.status, "another backup is being made" in done.err) == (75, True)
        processes.until(lambda: here.tq("backup", "b.tar").status == 0, "the first one is over")
        token = here.token("submit")
        nowhere = str(tmp_path / "none")
        away = {
            "TQ_DATA": nowhere, "XDG_STATE_HOME": nowhere, "TQ_TOKEN": token,
            "TQ_URL": f"tq://127.0.0.1:{here.server.port}", "TQ_CA": str(here.server.data / "identity/ca.pem"),
        }  # fmt: skip
        assert here.tq("backup", "c.tar", environ=away).status == 4
        assert sorted(path.name for path in here.place.glob("*.tar*")) == ["b.tar"]


def test_workers_of_the_old_store_stop_its_work_and_keep_their_results_aside(tmp_path: Path) -> None:
    script = "echo begin >>long; while ! test -e flag; do sleep 0.05; done; echo end >>long"
    short = "echo $$ >>short; while ! test -e ended; do sleep 0.05; done"
    with town(tmp_path, "--heartbeat", "200ms") as here:
        worker = here.worker(slots=2)
        long, brief = here.submit("sh", "-c", script), here.submit("sh", "-c", short)
        here.until_started(long)
        here.until_started(brief)
        old = here.running(long)
        backup = back_up(here, "b.tar")
        late = here.submit("true")  # behind the backup: it is not in the new store
        here.server.kill()
        (tmp_path / "ended").touch()  # its result is owed to a server that never comes back
        spool = tmp_path / "worker/tq/worker/spool"
        processes.until(lambda: any(path.name.isdecimal() for path in spool.iterdir()), "the result is on its disk")

        serve(here, restored(here, backup, "new"))
        worker.says(r"other_lineage .*held=")
        processes.until(lambda: not any(map(processes.is_alive, old)), "the old copy is stopped")
        worker.says(r"results_orphaned ")
        aside = list((spool / "orphaned").iterdir())
        lineage = re.search(r"lineage=([0-9a-f]{16})", worker.text())
        assert lineage is not None
        assert [path.name.startswith(lineage[1]) for path in aside] == [True] * len(aside)
        assert aside
        # The same worker serves the restored store: what ran there by its word runs anew.
        (tmp_path / "flag").touch()
        assert (here.wait(long), here.wait(brief)) == (0, 0)
        assert (tmp_path / "long").read_text().split() == ["begin", "begin", "end"]
        assert len((tmp_path / "short").read_text().split()) == 2
        assert here.show(long)["attempt"] == 2
        again = here.submit("true")
        assert (again, here.wait(again)) == (late, 0)
        assert here.counter("stale_reports") == 0
        here.check_store()
