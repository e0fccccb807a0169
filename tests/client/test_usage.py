"""Both clients have the same calls, each is documented, and each stands in the program that mypy reads."""

import inspect
import pydoc
from pathlib import Path
from typing import Any

import pytest

import tq.client

USAGE = Path(__file__).with_name("usage.py").read_text()
KINDS = [
    (tq.client.Client, tq.client.BlockingClient, {"close"}),
    (tq.client.Job, tq.client.BlockingJob, set[str]()),
    (tq.client.Jobs, tq.client.BlockingJobs, set[str]()),
]


def calls(kind: type[Any]) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(call)
        for name, call in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
    }


@pytest.mark.parametrize("kind, blocking, alone", KINDS)
def test_both_clients_have_the_same_calls_with_the_same_arguments(kind, blocking, alone):
    one, other = calls(kind), calls(blocking)

    assert other.keys() - one.keys() == alone
    assert one.keys() <= other.keys()
    for name, signature in one.items():
        assert str(other[name]).replace("Blocking", "").split("->")[0] == str(signature).split("->")[0], name


@pytest.mark.parametrize("kind", [kind for pair in KINDS for kind in pair[:2]])
def test_every_call_is_documented_and_used(kind):
    for name in calls(kind):
        assert getattr(kind, name).__doc__, name
        assert f".{name}(" in USAGE, name


@pytest.mark.parametrize("connect", [tq.client.connect, tq.client.connect_blocking])
def test_help_shows_nothing_of_the_environment(connect):
    """It has tokens in it, and what `help` shows goes into logs, notebooks and pages."""
    assert "PATH" not in pydoc.plain(pydoc.render_doc(connect))


@pytest.mark.parametrize("options", [tq.client.Options, tq.client.CommandOptions])
def test_every_option_is_documented_and_used(options):
    of_all = set[str]() if options is tq.client.Options else set(tq.client.Options.__annotations__)
    for name in set(options.__annotations__) - of_all:
        assert f"`{name}`" in (options.__doc__ or ""), name
        assert f'"{name}":' in USAGE, name
