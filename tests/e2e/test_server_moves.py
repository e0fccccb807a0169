"""A server that comes back at another port: its worker finds it by the connection file, and takes what is queued."""

from pathlib import Path

import pytest

from tests.server.process import command, free_port, running_server, running_worker, wait_until
from tq.core.vocabulary import Get, Submitted


@pytest.mark.parametrize("options", [(), ("--data", "{data}")], ids=["found", "of a directory"])
def test_a_worker_follows_its_server_to_another_port_after_a_kill(tmp_path: Path, options: tuple[str, ...]) -> None:
    with running_server(tmp_path) as server:
        words = [word.format(data=server.data) for word in options]
        with running_worker(server, *words):
            for _ in range(2):
                with server.client() as client:
                    made = client.ask(command("true"))
                    assert isinstance(made, Submitted)
                    wait_until(lambda: client.ask(Get(made.id)).value["state"] == "succeeded")  # noqa: B023
                server.kill()
                server.port = free_port()
                server.start()
