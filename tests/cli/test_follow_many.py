"""`logs` of many tasks at once: an array, or several jobs, over one connection of a server that a test speaks for."""

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.cli.conftest import Run
from tests.cli.fake import FakeServer
from tq import limits
from tq.core import vocabulary as v
from tq.errors import NotDone, TaskNotFound


class Story:
    """An array `43` of which the server tells one page after the other; each task has written its own id."""

    def __init__(
        self, server: FakeServer, *pages: list[dict[str, object]], running: Iterator[object] | None = None
    ) -> None:
        self.server = server
        self.pages = pages
        self.running = running or iter(())
        server.says[v.Get] = lambda asked: v.Document({"id": asked.id, "is_array": asked.id == "43", "size": 9})
        server.says[v.List] = self.page
        server.says[v.Logs] = lambda asked: output(asked.id)

    def page(self, asked: v.List) -> v.Page:
        if not asked.begun:
            return v.Page(tuple(next(self.running, ())))
        number = int(asked.page or 0)
        last = number + 1 == len(self.pages)
        return v.Page(tuple(self.pages[number]), "" if last else str(number + 1))

    def read(self) -> Counter[str]:
        """How often the output of each task was asked for."""
        return Counter(asked.id for asked in self.server.asked if isinstance(asked, v.Logs))


def item(task: str, attempt: int = 1, **more: object) -> dict[str, object]:
    return {"id": task, "attempt": attempt, "state": "running", "round": 1, **more}


def output(task: str, attempt: int = 1, *, text: str = "", state: str = "succeeded") -> list[v.Answer]:
    data = (text or f"{task}\n").encode()
    return [v.Chunk(1, 0, data, attempt), v.LogsEnd(attempt, (len(data), 0), state)]


def lines(text: str) -> list[str]:
    return sorted(text.splitlines())


@pytest.mark.parametrize("how, before", [([], True), (["--prefix"], True), (["--no-prefix"], False)])
def test_members_that_start_later_join_and_the_array_is_listed_once(
    run: Run, server: FakeServer, how: list[str], before: bool
) -> None:
    """Those that have not begun are not asked for; a page that was empty is asked for again, from there on."""
    story = Story(server, [item("43.1"), item("43.2", 0)], [], [item("43.3")], [])
    ran = run("logs", "-f", "43", *how)
    shown = ["43.1 out| 43.1", "43.3 out| 43.3"] if before else ["43.1", "43.3"]
    assert (ran.status, lines(ran.out), ran.err) == (0, shown, "")
    assert story.read() == {"43.1": 1, "43.3": 1}
    assert [asked.page for asked in server.asked if isinstance(asked, v.List) and asked.begun] == ["", "1", "2", "3"]
    assert all(asked.follow for asked in server.asked if isinstance(asked, v.Logs))


def test_a_full_page_is_followed_by_the_next_at_once(run: Run, server: FakeServer) -> None:
    members = [item(f"43.{number}") for number in range(1, 601)]
    story = Story(server, members[:250], members[250:500], members[500:], [])
    assert len(run("logs", "-f", "43").out.splitlines()) == 600
    assert set(story.read().values()) == {1}


def test_the_next_attempt_of_a_member_is_shown(run: Run, server: FakeServer) -> None:
    Story(server, [item("43.1")])
    answers = iter([output("43.1", text="first\n", state="retrying"), output("43.1", 2, text="second\n")])
    server.says[v.Logs] = lambda _: next(answers)
    ran = run("logs", "-f", "43")
    assert (ran.out, ran.err) == ("43.1 out| first\n43.1 out| second\n", "tq: 43.1: attempt 2 begins\n")


def test_of_attempts_that_were_handed_back_before_it_nothing_is_said(run: Run, server: FakeServer) -> None:
    Story(server, [item("43.1", 7)])
    server.says[v.Logs] = lambda _: output("43.1", 7, text="first\n")
    ran = run("logs", "-f", "43")
    assert (ran.out, ran.err) == ("43.1 out| first\n", "")


def test_what_is_retried_by_hand_is_shown_once_more_and_only_once(run: Run, server: FakeServer) -> None:
    again = item("43.1", 2, round=2)
    running = iter([[item("43.1"), item("43.2")], [again], [again], []])
    story = Story(server, [item("43.1"), item("43.2")], [], [], [], running=running)
    answers = Counter[str]()

    def say(asked: v.Logs) -> list[v.Answer]:
        answers[asked.id] += 1
        return output(asked.id, answers[asked.id], state="succeeded" if answers[asked.id] == 2 else "dead")

    server.says[v.Logs] = say
    assert lines(run("logs", "-f", "43").out) == ["43.1 out| 43.1", "43.1 out| 43.1", "43.2 out| 43.2"]
    assert story.read() == {"43.1": 2, "43.2": 1}


def test_after_a_cut_each_task_goes_on_where_it_was(run: Run, server: FakeServer) -> None:
    story = Story(server, [item("43.1"), item("43.2")], [])
    answers: dict[str, Iterator[list[object]]] = {
        "43.1": iter([[v.Chunk(1, 0, b"one\ntw", 1), ...], *[output("43.1", text="one\ntwo\n", state="dead")] * 2]),
        "43.2": iter([output("43.2")]),
    }
    server.says[v.Logs] = lambda asked: next(answers[asked.id])
    ran = run("logs", "-f", "43")
    assert (ran.status, lines(ran.out), ran.err) == (0, ["43.1 out| one", "43.1 out| two", "43.2 out| 43.2"], "")
    assert v.Logs("43.1", 1, follow=True, position=(6, 0)) in server.asked
    assert story.read()["43.1"] == 3
    assert len(server.hellos) == 2


def test_a_server_that_goes_away_while_it_is_asked_for_members_loses_none(run: Run, server: FakeServer) -> None:
    Story(server, [item("43.1")], [item("43.2")], [])
    cuts = iter([True, False, True])
    tell = server.says[v.List]
    server.says[v.List] = lambda asked: [...] if next(cuts, False) else tell(asked)
    assert lines(run("logs", "-f", "43").out) == ["43.1 out| 43.1", "43.2 out| 43.2"]


def test_no_more_streams_are_open_than_the_server_gives(run: Run, server: FakeServer) -> None:
    """All are shown in the end, also where the server gives fewer than expected."""
    members = [item(f"43.{number}") for number in range(1, 41)]
    story = Story(server, members, [])
    refused = iter([False] * 3 + [True] * 5)

    def say(asked: v.Logs) -> list[v.Answer]:
        if next(refused, False):
            raise NotDone("3 streams on one connection are enough")
        return output(asked.id)

    server.says[v.Logs] = say
    ran = run("logs", "-f", "43")
    assert (ran.status, len(ran.out.splitlines()), ran.err) == (0, 40, "")
    assert sum(story.read().values()) == 45
    assert limits.streams_max < 40


def test_a_task_that_is_forgotten_meanwhile_is_said_and_the_others_go_on(run: Run, server: FakeServer) -> None:
    Story(server, [item("43.1"), item("43.2")], [])

    def say(asked: v.Logs) -> list[v.Answer]:
        if asked.id == "43.1":
            raise TaskNotFound("job 43 is gone")
        return output(asked.id)

    server.says[v.Logs] = say
    assert run("logs", "-f", "43") == (0, "43.2 out| 43.2\n", "tq: job 43 is gone\n")


def test_tail_begins_near_the_end_of_each(run: Run, server: FakeServer) -> None:
    Story(server, [item("43.1"), item("43.2")], [])

    def say(asked: v.Logs) -> list[v.Answer]:
        if asked.follow:
            return [v.Chunk(1, asked.position[0], b"new\n", 1), v.LogsEnd(1, (8, 0), "succeeded")]
        return output(asked.id, text="a\nb\n", state="running" if asked.id == "43.1" else "succeeded")

    server.says[v.Logs] = say
    ran = run("logs", "-f", "43", "--tail", "1")
    assert lines(ran.out) == ["43.1 out| b", "43.1 out| new", "43.2 out| b"]


def test_of_a_name_all_jobs_that_have_not_ended_are_followed(run: Run, server: FakeServer) -> None:
    Story(server, [item("43.1")])
    tell = server.says[v.List]

    def page(asked: v.List) -> v.Page:
        if asked.job:
            return tell(asked)
        jobs = ("43", "42") if asked.states else ("43", "42", "41")
        return v.Page(tuple({"id": job} for job in jobs[: asked.limit]) if asked.name == "nightly" else ())

    server.says[v.List] = page
    assert lines(run("logs", "-f", "nightly").out) == ["42 out| 42", "43.1 out| 43.1"]
    server.says[v.Wait] = lambda asked: v.Waited(False, (v.Outcome("43", "queued", size=2),))
    assert run("logs", "nightly") == (0, "", "")


def test_of_a_name_whose_jobs_have_ended_the_newest_is_shown(run: Run, server: FakeServer) -> None:
    server.says[v.List] = lambda asked: v.Page(() if asked.states else ({"id": "42"}, {"id": "41"})[: asked.limit])
    server.says[v.Logs] = lambda asked: output(asked.id)
    assert run("logs", "-f", "nightly").out == "42\n"


def test_an_attempt_is_of_one_task(run: Run, server: FakeServer) -> None:
    Story(server, [item("43.1")])
    ran = run("logs", "-f", "43", "--attempt", "2")
    assert (ran.status, ran.out) == (2, "")
    assert "hint: name one, as in 43.7" in ran.err


def test_stored_output_of_an_array_is_shown_in_order_and_an_attempt_that_some_have_had(
    run: Run, server: FakeServer
) -> None:
    Story(server)
    server.says[v.List] = lambda _: v.Page((item("43.1"), item("43.2", 0), item("43.3", 2)))
    assert run("logs", "43").out == "43.1 out| 43.1\n43.3 out| 43.3\n"
    assert run("logs", "43", "--attempt", "2").out == "43.3 out| 43.3\n"
    assert run("logs", "43", "--attempt", "9") == (1, "", "tq: no task of 43 has had an attempt 9\n")


def test_who_detaches_from_an_array_is_told_how_to_cancel_it(
    run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    Story(server, [item("43.1")])
    monkeypatch.setattr("tq.cli.showing.follow_many.FollowMany.run", interrupted)
    server.says[v.List] = lambda _: v.Page(({"id": "43", "state": "running"},))
    said = "\ntq: detached; no task is touched. To cancel: tq cancel 43\n"
    assert run("logs", "-f", "43") == run("logs", "-f", "last") == (130, "", said)


def test_submit_follow_of_an_array_shows_all_and_exits_as_it_did(run: Run, server: FakeServer) -> None:
    Story(server, [item("43.1"), item("43.2")], [])
    server.says[v.Submit] = lambda _: v.Submitted("43")
    server.says[v.Wait] = lambda _: v.Waited(True, (v.Outcome("43", "dead", size=2, succeeded=1, ended=2),))
    ran = run("submit", "--follow", "--array", "1-2", "--", "true")
    assert (ran.status, lines(ran.out)) == (1, ["43", "43.1 out| 43.1", "43.2 out| 43.2"])


def test_submit_follow_asks_for_every_attempt_and_for_what_is_retried_by_hand_for_the_latest(
    run: Run, server: FakeServer
) -> None:
    again = item("43.1", 2, round=2)
    Story(server, [item("43.1")], [], [], running=iter([[], [again], []]))
    answers = iter([output("43.1", state="dead"), output("43.1", 2)])
    server.says[v.Logs] = lambda _: next(answers)
    server.says[v.Submit] = lambda _: v.Submitted("43")
    server.says[v.Wait] = lambda _: v.Waited(True, (v.Outcome("43", "succeeded", size=2, ended=2, succeeded=2),))
    assert run("submit", "--array", "1-2", "--follow", "--", "x").out == "43\n43.1 out| 43.1\n43.1 out| 43.1\n"
    assert [asked.every for asked in server.asked if isinstance(asked, v.Logs)] == [True, False]
