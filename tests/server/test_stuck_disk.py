"""A disk that never answers again: a flush hangs in the kernel, and nothing that touches the store would return."""

from pathlib import Path

from tests.server.process import ServerProcess, command, wait_until
from tq.errors import StoreError


def test_a_server_whose_disk_is_stuck_still_stops(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path)
    server.program = "tests.support.stuck_server"
    server.start()
    try:
        with server.client() as client:
            client.ask(command("true", key="before"))
            (server.data / "stuck").touch()
            client.post(command("true", key="after"))
            wait_until((server.data / "sticks").exists)
            status = server.stop()
    finally:
        server.kill()

    assert status == StoreError.exit_status, server.log()
    assert "flush_stuck" in server.log()
