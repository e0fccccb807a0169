"""Acting on many, through real processes that are killed in the middle: what was answered stays true."""

from pathlib import Path
from typing import Any

import pytest

from tests.server.process import ServerProcess, command, running_server, running_worker, wait_for, wait_until
from tq.core.vocabulary import Acted, Cancel, Forget, Get, Hold, List, Release, Status, Where, Workers
from tq.errors import TaskNotFound

MEMBERS = 10_000_000


def counts(client: Any, job: str) -> dict[str, int]:
    found: dict[str, int] = client.ask(Get(job)).value["counts"]
    return found


def restart(server: ServerProcess, client: Any) -> None:
    """Kill the server, start it again, and wait until its worker is back."""
    server.kill()
    server.start()
    wait_until(lambda: any(worker["state"] == "up" for worker in client.ask(Workers()).items))


def settled(client: Any, ran: Path, job: str) -> list[str]:
    """Wait until nothing of a job is out at a worker, and something else has run since; return what has run of it."""
    wait_until(lambda: not counts(client, job).get("running"))
    seen = ran.read_text().split()
    other = client.ask(command("true")).id
    wait_for(client, other)
    return seen


def test_what_is_held_or_cancelled_starts_nothing_more_whatever_is_killed(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    ran.touch()
    with running_server(tmp_path) as server, running_worker(server), server.client() as client:
        script = f"echo $TQ_MEMBER >> {ran}"
        client.ask(command("sh", "-c", script, size=MEMBERS, is_array=True))
        wait_until(lambda: len(ran.read_text().split()) > 20)
        assert client.ask(Hold(("1",))) == Acted(1)
        restart(server, client)
        seen = settled(client, ran, "1")
        assert ran.read_text().split() == seen
        assert len(set(seen)) == len(seen)
        found = counts(client, "1")
        assert found == {"held": MEMBERS - len(seen), "succeeded": len(seen)}
        assert [item["state"] for item in client.ask(List("1", ("held",), limit=2)).items] == ["held", "held"]

        client.ask(Release(("1",)))
        wait_until(lambda: len(ran.read_text().split()) > len(seen) + 20)
        answer = client.ask(Cancel(("1",)))
        assert answer.done > MEMBERS - 100_000
        restart(server, client)
        seen = settled(client, ran, "1")
        assert ran.read_text().split() == seen
        found = counts(client, "1")
        assert set(found) <= {"cancelled", "succeeded"}
        assert sum(found.values()) == MEMBERS
        assert client.ask(Forget(("1",))).done == 1
        with pytest.raises(TaskNotFound):
            client.ask(Get("1"))


def test_a_sweep_over_many_jobs_ends_after_the_server_was_killed_in_it(tmp_path: Path) -> None:
    jobs = 2_500
    with running_server(tmp_path) as server, server.client() as client:
        for _ in range(jobs):
            client.ask(command("true", tags=("old",)))
        assert client.ask(Cancel(where=Where(tag="old"))).sweeping
        server.kill()
        server.start()
        wait_until(lambda: client.ask(Status()).value["tasks"]["queued"] == 0)
        newer = client.ask(command("true", tags=("old",))).id

        assert client.ask(Status()).value["tasks"]["cancelled"] == jobs
        assert client.ask(Get(newer)).value["state"] == "queued"


def test_what_ended_long_ago_is_forgotten_and_what_failed_stays(tmp_path: Path) -> None:
    with running_server(tmp_path, "--keep", "10ms") as server, server.client() as client:
        with running_worker(server):
            for program in ("true", "false"):
                wait_for(client, client.ask(command(program)).id)
        assert len(client.ask(List()).items) == 2
        server.stop()
        server.start()
        wait_until(lambda: [item["id"] for item in client.ask(List()).items] == ["2"])
