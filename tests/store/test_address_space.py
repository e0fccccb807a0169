"""A server that would be aborted for want of address space does not begin."""

import resource
from pathlib import Path

import pytest

from tq.errors import ConfigurationError
from tq.server import serve
from tq.server.settings import Settings
from tq.store import process_limits


@pytest.mark.parametrize("limit", [resource.RLIM_INFINITY, process_limits.server_bytes_min])
def test_as_much_as_it_needs_is_enough(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    process_limits.check_address_space()


def test_with_less_a_server_says_so_before_it_touches_its_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limit = process_limits.server_bytes_min - 1
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    with pytest.raises(ConfigurationError, match=r"ulimit -v") as caught:
        serve.main(Settings(tmp_path / "data", tmp_path / "state"))
    assert "LimitAS" in caught.value.hint
    assert not (tmp_path / "data").exists()
