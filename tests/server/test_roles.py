"""The table of roles, walked over every command of the vocabulary."""

from typing import get_args

import pytest

from tq.core import vocabulary as v
from tq.core.engine.handlers import READS
from tq.core.model.job import ROLES
from tq.errors import NotAllowed
from tq.server.sessions import roles

COMMANDS = get_args(v.Command)
CLIENT = get_args(v.ClientCommand)
WORKER = get_args(v.WorkerCommand)
SERVER = get_args(v.ServerCommand)


def may(role: str, command: type) -> bool:
    try:
        roles.check_allowed(role, command)
    except NotAllowed:
        return False
    return True


def test_every_command_is_in_the_table() -> None:
    assert set(roles.ALLOWED) == set(COMMANDS)


def test_what_changes_nothing_is_what_the_engine_reads_and_what_is_answered_at_the_edge() -> None:
    assert set(get_args(v.Read)) == {*READS, v.StoreStatistics, v.Backup, v.Logs}


def test_a_command_that_is_not_in_the_table_is_nobodys() -> None:
    assert not any(may(role, int) for role in ROLES)


@pytest.mark.parametrize("command", COMMANDS)
def test_roles_are_ordered(command: type) -> None:
    """read < submit < admin: what one may, the next may too."""
    allowed = [may(role, command) for role in ("read", "submit", "admin")]

    assert allowed == sorted(allowed)


@pytest.mark.parametrize("command", CLIENT)
def test_a_workers_token_may_do_nothing_that_a_client_does(command: type) -> None:
    assert not may("worker", command)
    assert may("admin", command)


@pytest.mark.parametrize("command", WORKER)
def test_a_clients_token_may_neither_lease_nor_report(command: type) -> None:
    assert not may("read", command)
    assert not may("submit", command)
    assert may("worker", command)


@pytest.mark.parametrize("command", SERVER)
def test_no_peer_may_send_the_servers_own_commands(command: type) -> None:
    assert not any(may(role, command) for role in ROLES)


ON_JOBS = [v.Submit, v.Upload, v.Cancel, v.Hold, v.Release, v.Requeue, v.Retry, v.SetPriority, v.SetThrottle, v.Forget]
ON_ALL = [v.SetQueue, v.Drain, v.CreateToken, v.RevokeToken, v.Tokens]


@pytest.mark.parametrize("command", [*ON_JOBS, *ON_ALL])
def test_a_read_token_changes_nothing_and_sees_no_tokens(command: type) -> None:
    assert not may("read", command)


@pytest.mark.parametrize("command", ON_ALL)
def test_a_submit_token_makes_no_tokens_drains_nobody_and_sets_no_queue(command: type) -> None:
    assert not may("submit", command)


@pytest.mark.parametrize("command", ON_JOBS)
def test_a_submit_token_acts_on_jobs(command: type) -> None:
    assert may("submit", command)


@pytest.mark.parametrize(
    "token,peer,allowed",
    [
        ("read", "client", True),
        ("submit", "client", True),
        ("admin", "client", True),
        ("worker", "client", False),
        ("read", "worker", False),
        ("submit", "worker", False),
        ("worker", "worker", True),
        ("admin", "worker", True),
    ],
)
def test_a_token_connects_as_what_it_is_for(token: str, peer: str, allowed: bool) -> None:
    if allowed:
        roles.check_peer(token, peer)
    else:
        with pytest.raises(NotAllowed):
            roles.check_peer(token, peer)


@pytest.mark.parametrize(
    "command, says",
    [
        (v.Submit, "a token of role read may not submit"),
        (v.CreateToken, "a token of role read may not create token"),
        (v.Tokens, "a token of role read may not see tokens"),
    ],
)
def test_a_refusal_is_in_words(command: type, says: str) -> None:
    with pytest.raises(NotAllowed) as refused:
        roles.check_allowed("read", command)
    assert refused.value.message == says


def test_only_who_may_submit_sees_environments() -> None:
    assert [role for role in ROLES if roles.sees_secrets(role)] == ["submit", "admin"]
