"""`doctor`: what ails a server, its disk, its workers or this machine is found, and said with what to do about it."""

import errno
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.cli.fake import FakeServer
from tq import __version__
from tq.core import vocabulary as v
from tq.launcher import cgroups, containment


class TestDoctor:
    """Each finding is ok, warn or fail; only a failure makes the exit status 1."""

    @pytest.fixture
    def story(self, server: FakeServer, place: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """A healthy server's own story; the test changes what ails. Nothing is left over on this machine."""
        monkeypatch.setattr(cgroups, "abandoned", dict)
        monkeypatch.setattr(containment, "abandoned", list)
        data = place / "data"
        data.mkdir(mode=0o700)
        story: dict[str, Any] = {
            "version": __version__, "url": "tq://127.0.0.1:7878", "data": str(data), "room": "normal",
            "started_ms": round(time.time() * 1_000) - 5_000, "uptime_s": 5.0, "internal_errors": 0,
            "certificate_expires": "2999-01-01T00:00:00+00:00",
        }  # fmt: skip
        store = {"free_bytes": 1 << 40, "room": "normal", "settings": {"low_water_bytes": 1 << 29}}
        workers = [{"id": "w1", "state": "up", "slots": 2, "level": "group", "software": __version__, "host": "else"}]
        story["store"], story["workers"] = store, workers
        story["stuck"] = stuck = []
        server.says[v.Status] = lambda _: v.Document({"server": story, "stuck": stuck})
        server.says[v.StoreStatistics] = lambda _: v.Document(store)
        server.says[v.Workers] = lambda _: v.Page(tuple(workers))
        return story

    def found(self, run: Run) -> tuple[int, dict[str, dict[str, Any]]]:
        ran = run("doctor", "-o", "json")
        return ran.status, {item["id"]: item for item in json.loads(ran.out)["items"]}

    def test_a_healthy_server_is_ok_in_every_line(self, run: Run, story: dict[str, Any]) -> None:
        status, found = self.found(run)
        assert status == 0
        assert [item["status"] for item in found.values()] == ["ok"] * len(found)
        assert list(found) == ["server", "versions", "clock", "disk", "certificate", "workers", "containment", "data",
                               "open files"]  # fmt: skip
        ran = run("doctor")
        assert ran.out.splitlines()[1] == f"ok    versions     everybody is tq {__version__}"
        assert ran.err == ""

    def test_the_directory_of_a_server_of_another_user_is_that_users(
        self, run: Run, story: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        user = os.geteuid() + 1
        monkeypatch.setattr(os, "geteuid", lambda: user)
        status, found = self.found(run)
        assert (status, "data" in found) == (0, False)

        is_dir = Path.is_dir

        def closed(path: Path) -> bool:
            if str(path) == story["data"]:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return is_dir(path)

        monkeypatch.setattr(Path, "is_dir", closed)
        status, found = self.found(run)
        assert (status, "data" in found) == (0, False)

    @pytest.mark.parametrize(
        "check, status, change",
        [
            ("versions", "warn", {"version": "0.0.1"}),
            ("clock", "warn", {"uptime_s": 15.0}),
            ("clock", "fail", {"uptime_s": 905.0}),
            ("clock", "fail", {"uptime_s": -905.0}),
            ("clock", "fail", {"now_ms": 1_000}),
            ("certificate", "warn", {"certificate_expires": time.strftime("%Y-%m-%dT%H:%M:%S+00:00",
                                                                          time.gmtime(time.time() + 86_400))}),
            ("certificate", "fail", {"certificate_expires": "2020-01-01T00:00:00+00:00"}),
            ("errors", "warn", {"internal_errors": 2}),
            ("damage", "fail", {"damages": 2}),
        ],
    )  # fmt: skip
    def test_what_ails_the_server_is_found(
        self, run: Run, story: dict[str, Any], check: str, status: str, change: dict[str, Any]
    ) -> None:
        story.update(change)
        code, found = self.found(run)
        assert (found[check]["status"], code) == (status, int(status == "fail"))
        assert found[check]["hint"]

    def test_a_clock_that_was_set_since_the_start_is_compared_as_it_is_now(
        self, run: Run, server: FakeServer, story: dict[str, Any]
    ) -> None:
        story["uptime_s"] = 90_000.0
        server.says[v.Status] = lambda _: v.Document({"server": {**story, "now_ms": round(time.time() * 1_000)}})
        assert self.found(run)[1]["clock"]["status"] == "ok"

    def test_what_a_dead_worker_left_alive_is_named_with_how_to_end_it(
        self, run: Run, story: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(containment, "abandoned", lambda: [7, 8, 9])
        code, found = self.found(run)
        assert (code, found["leftovers"]["text"]) == (0, "3 processes of tasks live on without a worker")
        assert found["leftovers"]["hint"].endswith("kill -KILL 7 8 9")
        monkeypatch.setattr(containment, "abandoned", lambda: [7])
        assert self.found(run)[1]["leftovers"]["text"] == "1 process of a task lives on without a worker"
        monkeypatch.setattr(cgroups, "abandoned", lambda: {Path("/cg/tq-1-2"): [7, 8, 9]})
        code, found = self.found(run)
        assert (code, found["leftovers"]["status"]) == (0, "warn")
        assert found["leftovers"]["text"] == "3 processes of a dead worker live on in /cg/tq-1-2"
        assert found["leftovers"]["hint"].endswith("echo 1 > /cg/tq-1-2/cgroup.kill")

    @pytest.mark.parametrize("mode, is_open", [(0o600, False), (0o640, True), (0o604, True)])
    def test_a_token_that_others_may_read_is_a_warning(
        self, run: Run, story: dict[str, Any], server: FakeServer, place: Path, mode: int, is_open: bool,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        token = json.loads((place / ".local/state/tq/connection.json").read_text())["token"]
        config, kept = place / ".config/tq/config.toml", place / "token"
        config.parent.mkdir(parents=True)
        for path, text in ((config, f'token = "{token}"\n'), (kept, token)):
            path.write_text(text)
            path.chmod(mode)
        code, found = self.found(run)
        assert (code, "secrets" in found) == (0, is_open)
        assert not is_open or str(config) in found["secrets"]["text"]
        config.write_text(f'token_file = "{kept}"\n')
        found = self.found(run)[1]
        assert ("secrets" in found) is is_open
        assert not is_open or str(kept) in found["secrets"]["text"]
        monkeypatch.setenv("TQ_TOKEN_FILE", "/nonexistent")
        assert "secrets" not in self.found(run)[1]
        monkeypatch.setenv("TQ_TOKEN", token)
        assert "secrets" not in self.found(run)[1]

    def test_workers_on_every_page_are_looked_at(self, run: Run, story: dict[str, Any], server: FakeServer) -> None:
        last = story["workers"][0] | {"id": "w2", "state": "degraded", "host": "rack", "software": "0.0.1"}
        server.says[v.Workers] = lambda asked: v.Page((last,)) if asked.page else v.Page((*story["workers"],), "next")
        found = self.found(run)[1]
        assert found["workers"]["text"] == "2 connected with 4 slots"
        assert found["versions"]["text"] == f"the server is tq {__version__}; others are not: rack (0.0.1)"
        assert "rack" in found["degraded workers"]["text"]

    def test_workers_that_all_drain_are_a_warning(self, run: Run, story: dict[str, Any]) -> None:
        story["workers"].append(story["workers"][0] | {"id": "w2", "state": "draining"})
        assert self.found(run)[1]["workers"]["status"] == "ok"
        story["workers"][0]["state"] = "draining"
        code, found = self.found(run)
        assert (found["workers"]["status"], code) == ("warn", 0)
        assert "tq undrain" in found["workers"]["hint"]

    def test_a_full_disk_fails_and_a_filling_one_warns(self, run: Run, story: dict[str, Any]) -> None:
        story["store"].update(free_bytes=700 << 20)
        assert self.found(run)[1]["disk"]["status"] == "warn"
        story["store"].update(free_bytes=7, room="critical")
        code, found = self.found(run)
        assert (code, found["disk"]["status"]) == (1, "fail")

    @pytest.mark.parametrize(
        "state, hint", [("quarantined", "tq undrain"), ("degraded", "state D"), ("suspect", "network")]
    )
    def test_workers_that_are_no_good_are_named(self, run: Run, story: dict[str, Any], state: str, hint: str) -> None:
        story["workers"].append(
            story["workers"][0] | {"id": "w2", "host": "rack-7", "state": state, "trouble": "broken"}
        )
        story["workers"] += [story["workers"][0] | {"id": f"w3{n}", "state": "draining"} for n in range(6)]
        code, found = self.found(run)
        idle = ", 6 of them draining"
        assert found["workers"]["text"] == "8 connected with 16 slots" + (
            f", 1 of them {state}{idle}" if state == "suspect" else idle
        )
        assert (found["workers"]["status"], found[f"{state} workers"]["status"], code) == ("ok", "warn", 0)
        assert found[f"{state} workers"]["text"].startswith("rack-7 (broken): ")
        assert hint in found[f"{state} workers"]["hint"]

    def test_of_many_workers_that_are_no_good_it_is_said_how_many_more(self, run: Run, story: dict[str, Any]) -> None:
        story["workers"] += [
            story["workers"][0] | {"id": f"w{n}", "host": f"m{n}", "state": "suspect"} for n in range(7)
        ]
        assert self.found(run)[1]["suspect workers"]["text"].startswith("m0, m1, m2, m3, m4 and 2 more: ")

    def test_a_worker_that_is_only_owed_its_return_is_none(self, run: Run, story: dict[str, Any]) -> None:
        story["workers"][0].update(state="suspect", slots=0)
        assert self.found(run)[1]["workers"]["status"] == "warn"

    def test_what_waits_for_somebody_to_act_is_named_with_the_reason(self, run: Run, story: dict[str, Any]) -> None:
        story["stuck"].append({"queue": "q", "tasks": 2, "reason": "queue q is paused"})
        code, found = self.found(run)
        assert (code, found["queue q"]["status"]) == (0, "warn")
        assert found["queue q"]["text"] == "2 tasks do not get on: queue q is paused"
        assert "stuck    2 in queue q: queue q is paused" in run().out
        story["stuck"][0]["tasks"] = 1
        assert self.found(run)[1]["queue q"]["text"] == "1 task does not get on: queue q is paused"

    def test_no_worker_is_a_warning(self, run: Run, story: dict[str, Any]) -> None:
        story["workers"].clear()
        code, found = self.found(run)
        assert (code, found["workers"]["status"]) == (0, "warn")

    def test_a_data_directory_that_others_read_fails(self, run: Run, story: dict[str, Any]) -> None:
        data = Path(story["data"])
        (data / "connection.json").touch()
        data.chmod(0o755)
        code, found = self.found(run)
        assert (code, found["data"]["status"]) == (1, "fail")
        assert found["data"]["hint"] == f"close it: chmod 700 {data}"

    @pytest.mark.parametrize("check, name", [("state", ".local/state/tq"), ("config", ".config/tq")])
    def test_where_others_may_write_is_found_before_it_is_needed(
        self, run: Run, story: dict[str, Any], server: FakeServer, place: Path, monkeypatch: pytest.MonkeyPatch,
        check: str, name: str,
    ) -> None:  # fmt: skip
        (place / "ca").write_text(server.identity.ca_pem)
        for variable, value in (("TQ_URL", server.url), ("TQ_TOKEN", server.token), ("TQ_CA", str(place / "ca"))):
            monkeypatch.setenv(variable, value)
        (place / name).mkdir(parents=True, exist_ok=True)
        assert check not in self.found(run)[1]
        (place / name).chmod(0o777)
        code, found = self.found(run)
        assert (code, found["server"]["status"], found[check]["status"]) == (1, "ok", "fail")
        assert f"other users may write to {place / name} (mode 0777)" in found[check]["text"]
        assert found[check]["hint"].endswith(f"chmod go-w {place / name}")

    def test_tasks_that_can_read_the_admin_token_are_told_of(self, run: Run, story: dict[str, Any]) -> None:
        import os
        import socket

        story["workers"][0].update(host=socket.gethostname(), pid=os.getpid())
        code, found = self.found(run)
        assert (code, found["users"]["status"]) == (0, "warn")
        assert f"uid {os.getuid()}, who can read the admin token" in found["users"]["text"]

    def test_without_a_server_the_rest_is_looked_at(self, run: Run, place: Path) -> None:
        code, found = self.found(run)
        assert code == 1
        assert found["server"]["status"] == "fail"
        assert "tq up" in found["server"]["hint"]
        assert "open files" in found
