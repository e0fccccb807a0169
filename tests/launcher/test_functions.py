"""A launcher calls functions in warm processes, and says of each call what became of it. Real processes, no worker."""

import os
import secrets
import signal
import sys

import pytest

from tests.support.launcher import Link, call, ref, usage, value_of
from tq import limits
from tq.core.model.task import Cause
from tq.core.vocabulary import Assignment
from tq.launcher import protocol
from tq.wire import plain


def fresh() -> int:
    return secrets.randbelow(2**31) + 1


# ---------------------------------------------------------------- what comes back


def test_arguments_and_values_are_plain_data(shared):
    value = [None, True, -(2**63), 1.5, "tå", b"\xff", [[]], {"a": {"b": [1]}}]

    assert value_of(shared, call("work:echo", value, x=value)) == [[value], {"x": value}]


def test_a_function_that_returns_nothing_returns_none(shared):
    end = shared.run(call("work:write", "a", "b"), fresh())

    assert (end.cause, end.code, plain.loads(end.value)) == (Cause.EXIT, 0, None)


def test_qualified_names_and_packages_are_found(shared):
    assert value_of(shared, call("work:Tool.use", 7)) == 21
    assert value_of(shared, call("parts.inner:f")) == "inner"


def test_an_async_function_runs_under_trio(shared):
    assert value_of(shared, call("work:under_trio", 5)) == 5


def test_a_module_is_imported_once_and_its_process_stays(link):
    seen = [value_of(link, call("work:count")) for _ in range(3)]

    assert [count for _, count in seen] == [1, 2, 3]  # type: ignore[misc]
    assert len({pid for pid, _ in seen}) == 1  # type: ignore[misc]


def test_a_call_knows_its_task_and_nothing_of_the_one_before(shared):
    one = ref(77, member=4)
    shared.spawn(
        call("work:variables"), [one], is_array=True, queue="q", trace="00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    )
    shared.until(lambda: one in shared.ends)
    first = plain.loads(shared.ends[one].value)
    second = value_of(shared, call("work:variables"))

    assert first["TQ_TASK"] == "77.5" and first["TQ_MEMBER"] == "5" and first["TQ_QUEUE"] == "q"  # noqa: PT018
    assert first["TQ_FENCE"] == str(one.lease) and first["TRACEPARENT"].startswith("00-aaa")  # noqa: PT018
    assert {"TQ_MEMBER", "TRACEPARENT", "SECRET"} & set(second) == set()


def test_what_a_call_does_to_its_variables_the_next_one_does_not_see(link):
    before = value_of(link, call("work:variables"))
    value_of(link, call("work:spoil_variables"))
    after = value_of(link, call("work:variables"))

    names = ("TQ_QUEUE", "TQ_WORKER")
    assert [after.get(name) for name in names] == [before.get(name) for name in names]  # type: ignore[union-attr]
    assert before["TQ_WORKER"]  # type: ignore[index, call-overload]


@pytest.mark.parametrize("items", [[], [[]]])
def test_what_a_call_does_to_its_arguments_the_next_one_does_not_see(link, items):
    data = call("work:gather", items)

    assert [value_of(link, data) for _ in range(2)] == [[*items, len(items)]] * 2


def test_an_array_gives_its_number_or_its_entry_as_the_last_argument(shared):
    entries = {
        call("work:echo", "first"): (None, ["first", 8]),
        call("work:echo", columns=1): (b"a line", ["a line"]),
        call("work:echo", columns=2): (b"left\0right", ["left", "right"]),
        call("work:echo", columns=1, has_plain_entries=True): (plain.dumps({"n": [1]}, 100, ""), [{"n": [1]}]),
        call("work:echo", columns=1, key=1): (b"\xff\xfe", [b"\xff\xfe"]),
    }
    for data, (entry, wanted) in entries.items():
        one = ref(fresh(), member=7)
        spawn = protocol.Spawn(1, 8, True, "q", "", data, 0, shared.worker, (Assignment(one, 8, entry),))
        shared.say(spawn)
        shared.until(lambda one=one: one in shared.ends)
        assert plain.loads(shared.ends[one].value)[0] == wanted


def test_output_is_that_of_its_call_whoever_wrote_it(shared):
    refs = [ref(fresh()) for _ in range(20)]
    for number, one in enumerate(refs):
        shared.spawn(call("work:write", f"out {number}", f"err {number}"), [one])
    shared.until(lambda: all(one in shared.ends for one in refs))

    for number, one in enumerate(refs):
        assert shared.text(one, 1) == f"out {number}\nfrom below\n".encode()
        assert shared.text(one, 2) == f"err {number}".encode()
        assert usage(shared.ends[one]).written == (len(shared.text(one, 1)), len(shared.text(one, 2)))


def test_output_without_measure_is_bounded_and_counted(link):
    size = 64 * limits.MIB

    end = link.run(call("work:flood", size), 1)

    assert end.cause == Cause.EXIT
    assert usage(end).written[0] == size
    assert usage(end).dropped[0] > size - 2 * limits.MIB


def test_directories_do_not_leak_into_the_next_call(shared, place):
    value_of(shared, call("work:wander"))

    assert value_of(shared, call("work:here")) == str(place)


# ---------------------------------------------------------------- what goes wrong


def test_an_exception_is_data_and_stands_on_stderr_too(shared):
    one = fresh()
    end = shared.run(call("work:raises", "gone"), one)

    raised = plain.loads(end.value)
    assert (end.cause, end.code) == (Cause.EXCEPTION, 1)
    assert (raised["type"], raised["message"]) == ("KeyError", "'gone'")
    assert "in raises" in raised["traceback"] and "warm_process.py" not in raised["traceback"]  # noqa: PT018
    assert shared.text(ref(one), 2).decode() == raised["traceback"]
    assert usage(end).error == "KeyError: 'gone'"


@pytest.mark.parametrize("name", ["work:deep", "work:raises_odd"])
def test_no_exception_is_too_odd(shared, name):
    end = shared.run(call(name), fresh())

    assert end.cause == Cause.EXCEPTION
    assert plain.loads(end.value)["type"] in {"RecursionError", "work.Odd"}


def test_a_long_message_is_cut(shared):
    end = shared.run(call("work:raises", "y" * 50_000), fresh())

    raised = plain.loads(end.value)
    assert len(raised["message"]) < limits.exception_message_bytes_max + 10
    assert len(raised["traceback"]) < limits.exception_traceback_bytes_max + 10


@pytest.mark.parametrize("text, times", [("y", 2 * protocol.frame_bytes_max), ("a name \udcff", 1), ("\udcff\ny", 1)])
@pytest.mark.parametrize("function", ["work:raises_value", "work:give_hostile"])
def test_whatever_its_message_an_exception_does_not_end_the_process(link, function, text, times):
    pid = value_of(link, call("work:count"))[0]  # type: ignore[index]

    end = link.run(call(function, text.encode(errors="surrogatepass"), times), fresh())

    assert end.cause == (Cause.EXCEPTION if function == "work:raises_value" else Cause.BAD_RESULT)
    assert value_of(link, call("work:count"))[0] == pid  # type: ignore[index]


def test_an_exception_without_a_message_is_said_by_its_name(shared):
    end = shared.run(call("work:raises_value", b""), fresh())

    assert (usage(end).error, plain.loads(end.value)["message"]) == ("ValueError", "")


@pytest.mark.parametrize("wish, code, value", [(0, 0, plain.NONE), (None, 0, plain.NONE), (3, 3, b""), ("why", 1, b"")])
def test_sys_exit_is_an_exit_with_that_code(shared, wish, code, value):
    one = fresh()
    end = shared.run(call("work:leave", wish), one)

    assert (end.cause, end.code, end.value) == (Cause.EXIT, code, value)
    assert shared.text(ref(one), 2) == (b"why\n" if wish == "why" else b"")


def test_a_process_that_ends_in_a_call_is_its_exit_and_another_goes_on(link):
    assert _ending(link.run(call("work:vanish", 3), 1)) == (Cause.EXIT, 3)
    assert _ending(link.run(call("work:crash"), 2)) == (Cause.SIGNAL, -signal.SIGSEGV)
    assert _ending(link.run(call("work:vanish", 0), 3))[0] == Cause.BAD_RESULT
    assert value_of(link, call("work:echo")) == [[], {}]


def _ending(end):
    return end.cause, end.code


@pytest.mark.parametrize(
    "what, why",
    [
        ("object", "object is not plain data"),
        ("set", "set is not plain data"),
        ("key", "a key of a dict is int"),
        ("large", "64 bits"),
        ("long", "result_bytes_max"),
        ("text", "no Unicode"),
    ],
)
def test_what_is_no_plain_data_is_a_bad_result_with_the_reason(shared, what, why):
    end = shared.run(call("work:give", what), fresh())

    assert (end.cause, end.value) == (Cause.BAD_RESULT, b"")
    assert why in usage(end).error


@pytest.mark.parametrize("name", ["work:cycle", "work:wide"])
def test_a_result_without_end_is_a_bad_result(shared, name):
    assert shared.run(call(name), fresh()).cause == Cause.BAD_RESULT


@pytest.mark.parametrize(
    "name, why",
    [
        ("work:nothing", "no function nothing"),
        ("work:Tool.nothing", "no function Tool.nothing"),
        ("work:Tool.limit", "is not a function"),
        ("work:path.join", "leads out of the module"),
        ("work:__loader__.get_data", "leads out of the module"),
        ("work:Tool.__init__.__globals__.get", "leads out of the module"),
        ("work:", "no function"),
        ("parts.nowhere:f", "no module parts.nowhere"),
        ("os:getpid", "does not allow the module os"),
        ("workshop:f", "does not allow the module workshop"),
        ("", "does not allow"),
    ],
)
def test_an_unknown_function_says_what_is_missing(shared, name, why):
    end = shared.run(call(name or ":"), fresh())

    assert (end.cause, end.code) == (Cause.UNKNOWN_FUNCTION, 127)
    assert why in usage(end).error


def test_a_function_that_came_after_its_module_was_imported_is_said_to_need_a_new_worker(tmp_path):
    file = tmp_path / "young.py"
    file.write_text("def old(): return 'old'\n")
    with Link() as link:
        link.say(protocol.Functions(("young",), (bytes(tmp_path),), bytes(tmp_path)))
        assert value_of(link, call("young:old")) == "old"
        os.utime(file, (1, 1))
        assert usage(link.run(call("young:new"), fresh())).error == "the module young has no function new"
        os.utime(file, (2**32, 2**32))
        assert "start the worker anew" in usage(link.run(call("young:new"), fresh())).error


@pytest.mark.parametrize(
    "module, kind", [("torn", "ModuleNotFoundError"), ("wrong", "SyntaxError"), ("script", "ImportError")]
)
def test_a_module_that_fails_to_import_is_an_exception(shared, module, kind):
    end = shared.run(call(f"{module}:f"), fresh())

    assert end.cause == Cause.EXCEPTION
    assert plain.loads(end.value)["type"] == kind


def test_wrong_arguments_are_an_exception(shared):
    end = shared.run(call("work:raises"), fresh())

    assert plain.loads(end.value)["type"] == "TypeError"


def test_without_modules_nothing_is_called():
    with Link() as link:
        assert link.run(call("work:echo"), 1).cause == Cause.UNKNOWN_FUNCTION


def test_a_worker_whose_interpreter_is_gone_gives_the_attempt_back(tmp_path, monkeypatch):
    """An upgrade has removed it: no task is to blame, and another worker can call its function."""
    interpreter = tmp_path / "python"
    interpreter.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    with Link() as link:
        link.say(protocol.Functions(("work",), (), bytes(tmp_path)))
        link.ping()
        interpreter.unlink()
        link.spawn(call("work:echo"), [ref(1)])
        link.until(lambda: link.recalled or link.ends)

    assert link.recalled[ref(1)].cause == Cause.WORKER_TROUBLE
    assert str(interpreter) in link.recalled[ref(1)].error


def test_trouble_of_the_worker_gives_the_attempt_back(tmp_path):
    with Link() as link:
        link.say(protocol.Functions(("work",), (), bytes(tmp_path / "gone")))
        link.spawn(call("work:echo"), [ref(1)])
        link.until(lambda: ref(1) in link.recalled)

    assert link.recalled[ref(1)].cause == Cause.WORKER_TROUBLE
    assert "gone" in link.recalled[ref(1)].error
