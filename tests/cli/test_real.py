"""The verbs against a real server and worker, as `tq up` runs them: the story of one task, all the way."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

TQ = [sys.executable, "-m", "tq"]
pytestmark = pytest.mark.slow


class Done(NamedTuple):
    status: int
    out: str
    err: str


Tq = Callable[..., Done]


class Place:
    """A home with `tq up` in it; `lines` waits for what it says."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environ = {**os.environ, "HOME": str(home)}
        self.log = home / "up.log"

    def start(self, *words: str, umask: int = -1) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*TQ, "up", "--listen", "127.0.0.1:0", "--slots", "2", *words],
                env=self.environ,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                umask=umask,
            )

    def says(self, pattern: str, process: subprocess.Popen[bytes] | None = None) -> re.Match[str]:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            found = re.search(pattern, self.log.read_text())
            if found:
                return found
            assert process is None or process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        raise AssertionError(f"up never said {pattern}: {self.log.read_text()}")

    def tq(self, *words: str, stdin: bytes = b"", env: dict[str, str] | None = None) -> Done:
        done = subprocess.run(
            [*TQ, *words],
            input=stdin,
            capture_output=True,
            env={**self.environ, **(env or {})},
            cwd=self.home,
            check=False,
            timeout=60,
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    def show(self, task: str) -> dict[str, object]:
        return json.loads(self.tq("show", task, "-o", "json").out)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("up"))
    process = place.start()
    try:
        place.says(r"worker \| .* connected ", process)
        yield place
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> int:
    for _ in range(2):
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                continue
    if process.poll() is None:
        process.kill()
    return process.wait()


def test_run_is_as_if_it_ran_here(place: Place) -> None:
    assert place.tq("run", "--", "sh", "-c", "echo out; echo err >&2; exit 7") == (7, "out\n", "err\n")
    assert place.tq("run", "--", "sh", "-c", "kill -9 $$").status == 137
    missing = place.tq("run", "--", "nosuch")
    assert missing.status == 127
    assert "nosuch" in missing.err


def test_run_may_leave_a_stream_in_a_file_of_the_workers_host(place: Place) -> None:
    script = "echo out; echo err >&2; exit 3"
    assert place.tq("run", "--stdout", "out.%n", "--", "sh", "-c", script) == (3, "", "err\n")
    assert (place.home / "out.1").read_text() == "out\n"
    assert place.tq("run", "--stdout", "both", "--stderr", "both", "--", "sh", "-c", script) == (3, "", "")
    assert (place.home / "both").read_text() == "out\nerr\n"
    missing = place.tq("run", "--stderr", "no/such/file", "--", "true")
    assert (missing.status, missing.out) == (126, "")
    assert "no/such/file" in missing.err


def test_input_goes_through_small_and_large(place: Place) -> None:
    assert place.tq("run", "--", "cat", stdin=b"hello\n").out == "hello\n"
    data = b"0123456789abcde\n" * 60_000
    assert place.tq("run", "--", "wc", "-c", stdin=data).out.strip() == str(len(data))


def test_it_runs_here_with_chosen_variables(place: Place) -> None:
    done = place.tq(
        "run", "--env", "CHOSEN=1", "--", "sh", "-c", "pwd; echo $CHOSEN $OTHER $TQ_ATTEMPT", env={"OTHER": "x"}
    )
    assert done.out == f"{place.home}\n1 1\n"
    gone = place.tq("run", "--cwd", "/nonexistent", "--", "true")
    assert gone.status == 125
    assert "/nonexistent" in gone.err


def test_limits_and_cancels_have_their_codes(place: Place) -> None:
    assert place.tq("run", "--time-limit", "200ms", "--", "sleep", "60").status == 124
    task = place.tq("submit", "--", "sleep", "60").out.strip()
    assert place.tq("wait", "--timeout", "300ms", task).status == 124
    assert place.tq("cancel", task).status == 0
    assert place.tq("wait", task).status == 130
    again = place.tq("cancel", task)
    assert again.status == 1
    assert "ended already" in again.err


def test_an_array_runs_each_number_once(place: Place) -> None:
    done = place.tq(
        "submit", "--retries", "0", "--array", "5-11:3", "--wait", "--",
        "sh", "-c", "echo $TQ_MEMBER; test $TQ_MEMBER != 8",
    )  # fmt: skip
    job = done.out.strip()
    assert done.status == 1
    listed = json.loads(place.tq("ls", job, "-o", "json").out)["items"]
    assert [(item["id"], item["state"]) for item in listed] == [
        (f"{job}.5", "succeeded"),
        (f"{job}.8", "dead"),
        (f"{job}.11", "succeeded"),
    ]
    assert place.tq("logs", f"{job}.11").out == "11\n"
    assert place.tq("wait", f"{job}.8").status == 1
    assert place.tq("logs", job).out == f"{job}.5 out| 5\n{job}.8 out| 8\n{job}.11 out| 11\n"
    assert place.tq("ls", job, "--state", "failed", "-q").out == f"{job}.8\n"


def test_show_tells_the_whole_story(place: Place) -> None:
    task = place.tq(
        "submit", "--name", "told", "--tag", "t", "--retries", "0", "--wait", "--", "sh", "-c", "echo 12345; exit 3"
    ).out.strip()
    shown = place.show(task)
    assert (shown["v"], shown["id"], shown["state"], shown["exit_code"], shown["signal"]) == (1, task, "dead", 3, None)
    assert shown["command"] == ["sh", "-c", "echo 12345; exit 3"]
    assert (shown["name"], shown["tags"], shown["attempt"]) == ("told", ["t"], 1)
    assert shown["usage"]["stdout_bytes"] == 6
    moments = [shown[key] for key in ("submitted_at", "leased_at", "started_at", "ended_at")]
    assert moments == sorted(moments)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", moment) for moment in moments)
    assert place.tq("ls", "--tag", "t", "-q").out == f"{task}\n"


def test_the_same_key_is_the_same_job(place: Place) -> None:
    first = place.tq("submit", "--key", "once", "--", "true")
    again = place.tq("submit", "--key", "once", "--", "true", "-o")
    assert again.status == 1
    assert place.tq("submit", "--key", "once", "--", "true").out == first.out


def test_what_is_not_there(place: Place) -> None:
    for words in (["show", "999999"], ["logs", "999999"], ["cancel", "999999"], ["drain", "nobody"]):
        done = place.tq(*words)
        assert (done.status, done.out) == (1, ""), words
        assert done.err.startswith("tq: ")
    assert place.tq("wait", "999999") == (125, "", "tq: there is no job 999999\nhint: tq ls\n")


def test_low_tokens_can_do_little(place: Place) -> None:
    reader = {"TQ_TOKEN": place.tq("token", "create", "--role", "read").out.strip()}
    task = place.tq("submit", "--env", "SECRET=x", "--", "true").out.strip()
    assert place.tq("submit", "--", "true", env=reader).status == 4
    assert "SECRET" not in place.tq("show", task, "-o", "json", env=reader).out
    assert "SECRET" in place.tq("show", task, "-o", "json").out
    worker = {"TQ_TOKEN": place.tq("token", "create", "--role", "worker").out.strip()}
    assert place.tq("submit", "--", "true", env=worker).status == 4
    token_id = reader["TQ_TOKEN"].split("_")[1]
    assert place.tq("token", "revoke", token_id).status == 0
    assert place.tq("ls", env=reader).status == 4


def test_another_machine_joins_by_the_string(place: Place, tmp_path: Path) -> None:
    url = next(i["value"] for i in json.loads(place.tq("config", "-o", "json").out)["items"] if i["id"] == "url")
    string = place.tq("join", "--role", "submit").out.strip()
    away = {"HOME": str(tmp_path), "TQ_URL": url, "TQ_JOIN": string}
    assert place.tq("run", "--no-stdin", "--", "echo", "joined", env=away).out == "joined\n"
    assert list((tmp_path / ".local/state/tq/cas").iterdir())


def test_workers_drain_and_come_back(place: Place) -> None:
    worker = json.loads(place.tq("workers", "-o", "json").out)["items"][0]
    assert (worker["state"], worker["slots"]) == ("up", 2)
    assert place.tq("drain", worker["id"]).status == 0
    assert json.loads(place.tq("workers", "-o", "json").out)["items"][0]["state"] == "draining"
    assert place.tq("undrain", worker["id"][:6]).status == 0
    assert place.tq("run", "--no-stdin", "--", "true").status == 0


def test_the_store_tells_its_figures_and_is_not_checked_while_served(place: Place) -> None:
    assert json.loads(place.tq("store", "stats", "-o", "json").out)["kind"] == "rocksdb"
    done = place.tq("store", "check")
    assert done.status == 78
    assert "is held by pid" in done.err


def test_bare_tq(place: Place) -> None:
    assert re.match(r"server   tq://127\.0\.0\.1:\d+ \(admin\)\nworkers  1 with 2 slots\n", place.tq().out)


def test_a_second_up_starts_a_worker_only(place: Place) -> None:
    second = place.start()
    place.says("already \\(pid \\d+\\): only a worker is started here", second)
    until = time.monotonic() + 20
    while len(json.loads(place.tq("workers", "-o", "json").out)["items"]) < 2:
        assert time.monotonic() < until
    assert stop(second) == 0


def test_run_outlives_a_killed_server_and_up_starts_it_again(place: Place) -> None:
    flag = place.home / "go-on"
    script = f"echo before; while [ ! -e {flag} ]; do sleep 0.05; done; echo after; exit 5"
    with subprocess.Popen(
        [*TQ, "run", "--no-stdin", "--", "sh", "-c", script], env=place.environ, stdout=subprocess.PIPE, cwd=place.home
    ) as running:
        assert running.stdout.readline() == b"before\n"
        pid = json.loads((place.home / ".local/share/tq/connection.json").read_bytes())["pid"]
        os.kill(pid, signal.SIGKILL)
        place.says("the server was ended by signal 9; it is started again")
        flag.touch()
        assert running.stdout.read() == b"after\n"
        assert running.wait(60) == 5
    assert (place.show("last")["attempt"], place.show("last")["losses"]) == (1, 0)


def test_up_drains_at_the_first_ctrl_c_and_leaves_a_whole_store(tmp_path: Path) -> None:
    place = Place(tmp_path)
    process = place.start("--data", "scratch")
    place.says(r"worker \| .* connected ", process)
    place.environ["TQ_DATA"] = "scratch"
    task = place.tq("submit", "--", "sh", "-c", "echo begun; sleep 1; echo done").out.strip()
    assert place.tq("wait", "--for", "running", task).status == 0
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    place.says("server_stopped status=0")
    checked = place.tq("store", "check", "-o", "json")
    assert (checked.status, json.loads(checked.out)["ok"]) == (0, True)
    assert json.loads(place.tq("store", "stats", "-o", "json").out)["served"] is False
    assert place.tq("ls").status == 69
    process = place.start("--data", "scratch")
    try:
        assert place.says(r"(?s)server_stopped.*worker \| [^\n]* connected ", process)
        assert place.show(task)["state"] == "succeeded"
        assert place.tq("logs", task).out == "begun\ndone\n"
    finally:
        stop(process)


def test_up_that_cannot_start_says_why_and_leaves(tmp_path: Path) -> None:
    place = Place(tmp_path)
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "open" / "something").touch()
    done = subprocess.run(
        [*TQ, "up", "--listen", "127.0.0.1:0", "--data", "open"],
        env=place.environ,
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 78
    assert b"server | tq: " in done.stderr


def test_up_leaves_nothing_open_to_others_whatever_the_umask_is(tmp_path: Path) -> None:
    place = Place(tmp_path / "home")
    place.home.mkdir()
    process = place.start(umask=0)
    try:
        place.says(r"worker \| .* connected ", process)
        assert place.tq("run", "--", "true").status == 0
        made = [path for path in (place.home / ".local").rglob("*") if path.is_dir()]
        assert {"share", "state", "tq", "worker", "db", "identity"} <= {path.name for path in made}
        open_to_others = [path for path in (place.home / ".local", *made) if path.stat().st_mode & 0o077]
        assert [path for path in open_to_others if "db" not in path.parts] == []  # RocksDB's own, in one that is closed
    finally:
        stop(process)


def test_the_file_of_a_killed_server_is_no_server_whoever_has_its_number_now(tmp_path: Path) -> None:
    data = tmp_path / ".local/share/tq"
    data.mkdir(mode=0o700, parents=True)
    left = {"url": "tq://127.0.0.1:1", "ca": "", "token": "", "pid": os.getpid()}
    (data / "connection.json").write_text(json.dumps(left))
    place = Place(tmp_path)
    process = place.start()
    try:
        place.says(r"worker \| .* connected ", process)
    finally:
        assert stop(process) == 0


def test_what_a_second_ctrl_c_stops_goes_back_uncharged(tmp_path: Path) -> None:
    place = Place(tmp_path)
    process = place.start()
    place.says(r"worker \| .* connected ", process)
    task = place.tq("submit", "--", "sleep", "60").out.strip()
    assert place.tq("wait", "--for", "running", task).status == 0
    for pattern in ("nothing new is taken", "stopping now"):
        process.send_signal(signal.SIGINT)
        place.says(pattern)
    assert process.wait(30) == 0
    place.says("worker_leaves .* unacknowledged=0")
    process = place.start()
    try:
        assert place.says(r"(?s)server_stopped.*worker \| [^\n]* connected ", process)
        assert place.show(task)["losses"] == 0
        assert place.tq("cancel", task).status == 0  # else the stop waits for it
    finally:
        stop(process)
