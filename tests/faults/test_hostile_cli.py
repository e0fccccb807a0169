"""Bad input and tasks that misbehave, with the real program: one server and worker for all, which go on."""

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.process import command
from tests.support import processes
from tests.support.town import TQ, Town, town
from tq import limits
from tq.core.vocabulary import Status
from tq.errors import TqError
from tq.store.directory import Room

pytestmark = pytest.mark.slow
MIB = 1024 * 1024
PRINTED = int(os.environ.get("TQ_PRINT_MIB", "200")) * MIB


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with town(tmp_path_factory.mktemp("town")) as made:
        made.worker(slots=4)
        yield made


@pytest.fixture(autouse=True)
def goes_on(request: pytest.FixtureRequest) -> Iterator[None]:
    """Assert after each test that the shared server still serves, and met nothing that it took for a bug of its own."""
    yield
    if "here" in request.fixturenames:
        made: Town = request.getfixturevalue("here")
        assert made.server.process.poll() is None
        assert figures(made)["server"]["internal_errors"] == 0


def figures(here: Town) -> dict[str, Any]:
    """Return the server's status; over a connection, since a program for each look would double the time."""
    with here.client() as client:
        return client.ask(Status()).value


def jobs(here: Town) -> int:
    return int(figures(here)["jobs"])


# ---------------------------------------------------------------- who asks


def away(here: Town, **variables: str) -> dict[str, str]:
    """Return the variables of a client that knows where the server is, and nothing else of this user's."""
    nowhere = here.place / "nowhere"
    nowhere.mkdir(exist_ok=True)
    ca = here.server.data / "identity/ca.pem"
    return {
        "TQ_DATA": str(nowhere), "XDG_STATE_HOME": str(nowhere), "TQ_URL": f"tq://127.0.0.1:{here.server.port}",
        "TQ_CA": str(ca), **variables,
    }  # fmt: skip


def expired(here: Town) -> str:
    """Return a token whose time has passed."""
    token = here.token("submit", "--expires", "1s")
    processes.until(lambda: here.tq("ls", environ=away(here, TQ_TOKEN=token)).status == 4, "it expires")
    return token


def revoked(here: Town) -> str:
    token = here.token("admin")
    assert here.tq("token", "revoke", token.split("_")[1]).status == 0
    return token


def wrong(here: Town) -> str:
    """Return a well-formed token that this server never gave."""
    from tq.net.token import RANDOM_BYTES, make_token

    return make_token("admin", os.urandom(RANDOM_BYTES)).text


def garbled(here: Town) -> str:
    token = here.token("admin")
    return token[:-8] + token[-8:].swapcase()


@pytest.mark.parametrize("make", [wrong, garbled, expired, revoked], ids=lambda make: make.__name__)
def test_a_token_that_is_not_valid_is_exit_4_and_is_nowhere_written(here: Town, make: Callable[[Town], str]) -> None:
    token = make(here)
    before = jobs(here)
    for words in (("submit", "--", "true"), ("ls",), ("token", "ls")):
        done = here.tq(*words, environ=away(here, TQ_TOKEN=token))
        assert (done.status, done.out) == (4, ""), words
        assert "Traceback" not in done.err
        assert_not_told(token, done.err)
    assert jobs(here) == before
    assert_not_told(token, here.server.log())


def assert_not_told(token: str, text: str) -> None:
    assert token not in text
    secret = token.split("_", 2)[-1]
    assert secret[-12:] not in text


def test_without_a_token_it_is_exit_4(here: Town) -> None:
    done = here.tq("submit", "--", "true", environ=away(here))
    assert (done.status, done.out) == (4, "")
    assert "hint:" in done.err


def test_a_worker_with_a_token_that_is_not_valid_leaves_with_4(here: Town) -> None:
    for token in (wrong(here), here.token("read"), here.token("submit")):
        done = here.tq("worker", environ=away(here, TQ_TOKEN=token))
        assert done.status == 4, done
        assert_not_told(token, done.err + here.server.log())


def test_the_certificate_of_another_server_is_refused_before_the_token_is_sent(here: Town, tmp_path: Path) -> None:
    with town(tmp_path) as other:
        token = here.token("admin")
        done = here.tq(
            "ls", environ={**away(here, TQ_TOKEN=token), "TQ_CA": str(other.server.data / "identity/ca.pem")}
        )
        assert done.status == 4, done
        assert_not_told(token, done.err + here.server.log())


def test_roles_may_do_their_own_and_no_more(here: Town) -> None:
    secret = "not-for-readers"
    job = here.submit("true", options=["--env", f"PASSWORD={secret}", "--stdin"])
    worker, reader, submitter = (away(here, TQ_TOKEN=here.token(role)) for role in ("worker", "read", "submit"))
    before = jobs(here)
    assert here.tq("submit", "--", "true", environ=worker).status == 4
    assert here.tq("submit", "--", "true", environ=reader).status == 4
    assert here.tq("cancel", job, environ=reader).status == 4
    assert here.tq("token", "create", "--role", "admin", environ=submitter).status == 4
    assert jobs(here) == before
    assert secret not in here.tq("show", job, "-o", "json", environ=reader).out
    assert secret not in here.tq("show", job, environ=reader).out
    assert secret not in here.tq("ls", "-o", "json", environ=reader).out
    assert here.show(job)["environment"] == {"PASSWORD": secret}


# ---------------------------------------------------------------- what is asked


def big_environment() -> dict[str, str]:
    return {f"BIG_{number}": "x" * 60_000 for number in range(18)}


@pytest.mark.parametrize(
    "words,variables,stdin,text",
    [
        (["--env-all", "--", "true"], big_environment(), b"", "body_bytes_max"),
        (["--", "echo", *["y" * 50_000] * 5], {}, b"", "body_bytes_max"),
        (["--", "echo", *["y"] * 5_000], {}, b"", "argv_items_max"),
        (["--stdin", "--", "cat"], {}, b"z" * (limits.stdin_bytes_max + 1), "stdin_bytes_max"),
        (["--name", "n" * 129, "--", "true"], {}, b"", "name"),
        (["--array", f"1-{limits.array_size_max + 1}", "--", "true"], {}, b"", "array"),
        (["--array", "9-1", "--", "true"], {}, b"", ""),
        (["--priority", "101", "--", "true"], {}, b"", ""),
        (["--time-limit", "-3", "--", "true"], {}, b"", ""),
        (["--", ""], {}, b"", "empty"),
        ([], {}, b"", "empty"),
    ],
    ids=["environment of 1 MiB", "argv of 250 kB", "5000 arguments", "stdin", "name", "array", "backwards", "priority",
         "time limit", "no program", "no command"],
)  # fmt: skip
def test_what_is_past_its_bound_is_refused_and_not_stored(
    here: Town, words: list[str], variables: dict[str, str], stdin: bytes, text: str
) -> None:
    before = jobs(here)
    done = here.tq("submit", *words, environ=variables, stdin=stdin)
    assert (done.status, done.out) == (2, ""), done.err[-500:]
    assert text in done.err
    assert len(done.err) < 2_000
    assert jobs(here) == before


def test_who_passes_by_the_programs_checks_is_refused_by_the_server(here: Town) -> None:
    before = jobs(here)
    with here.client() as client:
        for submit in (
            command("true", environment={"BIG": b"x" * MIB}),
            command("x" * (limits.argument_bytes_max + 1)),
            command(*["y" * 50_000] * 4),
            command("true", environment={"A=B": b""}),
            command(*["y"] * 5_000),
            command(""),
            command("true", name="n" * 10_000),
            command("true", size=limits.array_size_max + 1, is_array=True),
        ):
            with pytest.raises(TqError) as error:
                client.ask(submit)
            assert error.value.code in ("too_large", "bad_request", "protocol_error"), error.value
    assert jobs(here) == before


@pytest.mark.parametrize(
    "text,status",
    [("999999", 1), ("999999.7", 1), ("9" * 30, 2), ("1..2", 2), ("-1", 2), ("\x1b[31mred", 2), ("٣", 2), ("", 2),
     ("a" * 100_000, 2)],
    ids=["unknown", "unknown member", "huge", "dots", "minus", "escape", "other digits", "empty", "long"],
)  # fmt: skip
def test_an_id_that_is_unknown_or_no_id_is_an_error_in_a_line_or_two(here: Town, text: str, status: int) -> None:
    for verb in ("show", "logs", "wait", "cancel"):
        done = here.tq(verb, "--", text)
        # A status of 1 from `wait` would be a task's.
        expected = 125 if (verb, status) == ("wait", 1) else status
        assert (done.status, done.out) == (expected, ""), (verb, done)
        assert "Traceback" not in done.err
        assert "\x1b" not in done.err
        assert len(done.err) < 1_000


def test_a_missing_directory_or_program_has_its_cause_and_code(here: Town) -> None:
    (here.place / "plain").write_text("no program")
    cases = [
        (["--cwd", "/nonexistent", "--", "true"], 125, "cwd_missing"),
        (["--", "/nonexistent/program"], 127, "spawn_failed"),
        (["--", "nosuchprogram"], 127, "spawn_failed"),
        (["--", str(here.place / "plain")], 126, "spawn_failed"),
    ]
    for words, status, cause in cases:
        job = here.tq("submit", *words).out.strip()
        assert here.wait(job) == status, words
        shown = here.show(job)
        assert (shown["state"], shown["cause"], shown["attempt"]) == ("dead", cause, 1)


# ---------------------------------------------------------------- tasks that misbehave


def test_a_task_that_prints_without_end_costs_bounded_memory_and_disk(here: Town) -> None:
    launcher = here.workers[0].launcher
    size_before = directory_bytes(here.server.data)
    job = here.submit("sh", "-c", f"echo first; head -c {PRINTED} /dev/zero | tr '\\0' 'o'; echo; echo last")
    assert here.wait(job) == 0
    shown = here.show(job)["usage"]
    out = here.tq("logs", job).out
    assert shown["stdout_bytes"] == PRINTED + len("first\n") + len("\nlast\n")
    assert out.startswith("first\noooo")
    assert out.endswith("ooo\nlast\n")
    assert len(out) < 2 * MIB
    assert shown["stdout_dropped_bytes"] > PRINTED - 2 * MIB
    assert processes.rss_kib(launcher) < 100_000
    assert processes.rss_kib(here.workers[0].pid) < 150_000
    assert directory_bytes(here.server.data) - size_before < PRINTED / 2


def directory_bytes(place: Path) -> int:
    total = 0
    for path in place.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total


def test_binary_output_comes_back_as_it_was(here: Town) -> None:
    job = here.submit("sh", "-c", "head -c 300000 /dev/urandom | tee binary; printf '\\033]0;title\\a\\000\\377' >&2")
    assert here.wait(job) == 0
    done = subprocess.run([*TQ, "logs", "--raw", job], env=here.environ, capture_output=True, check=True)
    assert done.stdout == (here.place / "binary").read_bytes()
    assert done.stderr == b"\033]0;title\a\000\377"


def test_a_task_that_ignores_term_is_killed_after_its_grace(here: Town) -> None:
    job = here.submit(
        "sh", "-c", "trap '' TERM INT HUP; echo ready; while :; do sleep 0.1; done", options=["--kill-after", "300ms"]
    )
    here.until_started(job)
    assert here.tq("cancel", job).status == 0
    assert here.wait(job) == 130
    assert here.running(job) == []
    limited = here.submit(
        "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done",
        options=["--kill-after", "100ms", "--time-limit", "300ms", "--retries", "0"],
    )  # fmt: skip
    assert here.wait(limited) == 124
    assert here.running(limited) == []


@pytest.mark.parametrize(
    "script,held",
    [
        ("setsid sh -c 'trap \"\" TERM HUP; sleep 600' </dev/null >/dev/null 2>&1 & exit 3", False),
        ("(setsid setsid sleep 600 </dev/null >/dev/null 2>&1 &) ; exit 3", False),
        ("exec >&- 2>&-; sleep 0.3; exit 3", False),
        ("sleep 600 & exit 3", True),
        ("setsid sleep 600 & exit 3", True),
    ],
    ids=["daemon", "orphaned daemon", "closed stdout", "grandchild holds the pipe", "daemon holds the pipe"],
)
def test_nothing_outlives_a_task_and_nothing_keeps_it_from_ending(here: Town, script: str, held: bool) -> None:
    job = here.submit("sh", "-c", f"echo said; {script}", options=["--retries", "0"])
    assert here.wait(job, timeout="20") == 3
    assert here.running(job) == []
    shown = here.show(job)
    assert shown["usage"].get("output_held", False) is held
    assert here.tq("logs", job).out == "said\n"


def test_a_task_that_kills_its_launcher_hurts_itself_and_those_beside_it_only(tmp_path: Path) -> None:
    with town(tmp_path) as here:
        worker = here.worker(slots=2)
        bystander = here.submit("sh", "-c", "test $TQ_ATTEMPT -gt 1 || sleep 600")
        here.until_started(bystander)
        killer = here.submit("sh", "-c", "test $TQ_ATTEMPT -gt 1 || kill -9 $PPID; sleep 0.1")
        assert here.wait(killer, bystander) == 0
        for job in (killer, bystander):
            shown = here.show(job)
            assert (shown["attempt"], shown["losses"], shown["worker"]) == (2, 1, worker.id)
        assert worker.process.poll() is None


def test_a_task_that_signals_its_launcher_and_worker_is_just_a_task(here: Town) -> None:
    launcher = here.workers[0].launcher
    job = here.submit("sh", "-c", "for s in TERM INT HUP USR1 PIPE ALRM TSTP; do kill -$s $PPID; done; exit 5",
                      options=["--retries", "0"])  # fmt: skip
    assert here.wait(job) == 5
    assert here.workers[0].launcher == launcher
    assert not processes.is_frozen(launcher)


def test_a_wait_for_more_tasks_than_fit_one_answer_hears_of_every_end(here: Town) -> None:
    job = here.submit("sh", "-c", "exit $((TQ_MEMBER % 400 == 0))", options=["--array", "1-1200", "--retries", "0"])
    done = here.tq("wait", "--exit-code", "count", "-o", "json", f"{job}.1-1200")
    assert done.status == 3
    items = json.loads(done.out)["items"]
    assert [item["id"] for item in items] == [f"{job}.{number}" for number in range(1, 1_201)]
    assert [item["id"] for item in items if item["exit_status"]] == [f"{job}.400", f"{job}.800", f"{job}.1200"]


def test_a_wait_for_any_hears_of_an_end_that_comes_close_behind_other_news(here: Town) -> None:
    """The others go on for ever, so that nothing later could tell."""
    flag = here.place / "go"
    endless = [here.submit("sleep", "600") for _ in range(2)]
    once = f"while ! test -e {flag}; do sleep 0.02; done; exit 5"
    ending = here.submit("sh", "-c", once, options=("--retries", "0"))
    here.until_started(ending)
    with here.popen("wait", "--any", "--timeout", "30", *endless, ending) as waiting:
        processes.until(lambda: figures(here)["server"]["connections"].get("admin", 0) >= 3, "it waits")
        queued = here.submit("true")
        flag.touch()
        assert waiting.communicate()[1] == b""
    assert waiting.returncode == 5
    assert here.tq("cancel", *endless).status == 0
    assert here.wait(queued) == 0


# ---------------------------------------------------------------- the port


def test_one_loopback_port_is_all_that_listens(here: Town) -> None:
    pids = processes.tree(here.server.process.pid) + processes.tree(here.workers[0].pid)
    assert processes.listening(pids) == {f"0100007F:{here.server.port:04X}"}


def test_tls_1_2_is_refused_and_the_log_says_why(here: Town) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("127.0.0.1", here.server.port), timeout=10) as plain, pytest.raises(ssl.SSLError):
        old.wrap_socket(plain)
    processes.until(lambda: "a TLS version before 1.3" in here.server.log(), "the log says why")


def test_submits_go_on_beside_300_idle_sockets_and_garbage(here: Town) -> None:
    address = ("127.0.0.1", here.server.port)
    memory_kib = processes.rss_kib(here.server.process.pid)
    is_over = threading.Event()

    def spout() -> None:
        number = 0
        while not is_over.wait(0.01):
            number += 1
            rubbish = [b"GET / HTTP/1.1\r\n\r\n", os.urandom(2_000), b"\x16\x03\x01\xff\xff" + b"\0" * 9_000, b"\x16"]
            with contextlib.suppress(OSError), socket.create_connection(address, timeout=10) as plain:
                plain.sendall(rubbish[number % 4])

    with contextlib.ExitStack() as idle:
        for _ in range(300):
            idle.enter_context(socket.create_connection(address, timeout=30))
        thread = threading.Thread(target=spout)
        thread.start()
        try:
            known = [here.submit("true") for _ in range(3)]
            with here.client() as client:
                known += [client.ask(command("true")).id for _ in range(50)]
        finally:
            is_over.set()
            thread.join()
        assert len(set(known)) == 53
        assert here.wait(*known) == 0
    grown_kib = processes.rss_kib(here.server.process.pid) - memory_kib
    assert grown_kib < 50_000
    log = here.server.log()
    assert "Traceback" not in log, log[log.find("Traceback") :][:3_000]


# ---------------------------------------------------------------- the disk


def test_low_disk_takes_no_new_work_but_reports_and_goes_on_when_there_is_room(
    small_disk: tuple[Path, Callable[[int], None]],
) -> None:
    place, resize = small_disk
    with town(place) as here:
        here.worker(slots=1)
        flag = place / "flag"
        script = f"while ! test -e {flag}; do sleep 0.05; done; echo done; exit 3"
        running = here.submit("sh", "-c", script, options=["--retries", "0"])
        here.until_started(running)
        waiting = here.submit("true")

        resize(limits.free_bytes_min // MIB - 200)  # low
        until_room(here, Room.LOW)
        refused = here.tq("submit", "--", "true")
        assert (refused.status, refused.out) == (75, "")
        assert "disk" in refused.err
        assert here.show(running)["phase"] == "started"

        resize(limits.free_bytes_min // MIB // 2 - 50)  # critical: nothing is leased either
        until_room(here, Room.CRITICAL)
        flag.touch()
        assert here.wait(running) == 3
        assert here.tq("logs", running).out == "done\n"
        assert here.show(waiting)["state"] == "queued"
        assert here.tq("cancel", waiting).status == 0
        assert here.wait(waiting) == 130

        resize(2_048)
        until_room(here, Room.NORMAL)
        assert here.wait(here.submit("true")) == 0
        here.check_store()


def until_room(here: Town, room: Room) -> None:
    processes.until(lambda: figures(here)["server"]["room"] == room.value, f"its disk is {room.value}")


# ---------------------------------------------------------------- the store


def test_a_server_whose_log_was_removed_names_the_gap_and_does_not_start(tmp_path: Path) -> None:
    with town(tmp_path) as here:
        known = [here.submit("true") for _ in range(3)]
        here.server.kill()
        logs = sorted(path for path in (here.server.data / "db").glob("*.log") if path.stat().st_size)
        removed = logs[-1].rename(tmp_path / "removed.log")
        done = here.server.run()
        assert done.returncode == 78
        assert "acknowledged work is missing" in done.stderr
        assert "turn" in done.stderr
        assert "Traceback" not in done.stderr
        assert not (here.server.data / "db" / logs[-1].name).exists()
        removed.rename(logs[-1])
        here.server.start()
        for job in known:
            assert here.show(job)["id"] == job


def test_sigterm_ends_the_server_cleanly_under_load(tmp_path: Path) -> None:
    with town(tmp_path) as here:
        here.worker(slots=2)
        job = here.submit("true", options=["--array", "1-2000"])
        here.server.process.send_signal(signal.SIGTERM)
        assert here.server.process.wait(processes.PATIENCE_S) == 0
        here.server.start()
        assert here.wait(job) == 0
        here.check_store()
