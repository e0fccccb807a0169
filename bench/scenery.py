"""What the peers need that is not tq's: an environment of PyPI packages, Debian's packages, and their versions.

Nothing is installed unless asked for (`--install`). The environment is a directory of its own in the scratch directory
and stays there for the next run; Debian's packages need root, and their services are not started.
"""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from peers.stage import PATH, Peer, missing

NAMES: Final = (
    *("xargs", "parallel", "task_spooler", "hyperqueue"),
    *("beanstalkd", "dramatiq", "rq", "taskiq", "celery", "pgqueuer"),
)
ASK_VERSIONS: Final = """
import importlib.metadata, json, sys
print(json.dumps({d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}))
"""
NO_START: Final = "#!/bin/sh\nexit 101\n"  # what Debian asks before it starts a service


def peers() -> dict[str, Peer]:
    """Return all peers, by the names of their files."""
    return {name: importlib.import_module(f"peers.{name}").PEER for name in NAMES}


class Scenery:
    """The environment of the peers' Python packages, in `scratch`."""

    def __init__(self, scratch: str) -> None:
        self._directory = Path(scratch) / "tq-bench-peers"
        self.python = self._directory / "bin" / "python"
        self._pypi = self._versions()

    def install(self) -> None:
        """Bring what the peers lack and this machine can have; say what could not be had."""
        wanted = peers().values()
        debian = sorted({package for peer in wanted if missing(peer, has_pypi=True) for package in peer.debian})
        if debian and os.geteuid() == 0 and shutil.which("apt-get"):
            self._debian(debian)
        if not self.python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(self._directory)], check=True)
        for peer in wanted:
            if peer.pypi and not self._has(peer):
                said(f"installing {' '.join(peer.pypi)} in {self._directory}")
                run(str(self.python), "-m", "pip", "install", "-q", *peer.pypi)
        self._pypi = self._versions()

    def lacks(self, peer: Peer) -> str:
        """Return why a peer cannot perform here, "" if it can."""
        return missing(peer, has_pypi=self._has(peer))

    def interpreter(self, peer: Peer) -> str:
        """Return the interpreter that runs a peer: tq's own for what needs nothing of Python."""
        return str(self.python) if peer.pypi else sys.executable

    def versions(self) -> str:
        """Return the versions of all that can perform here."""
        return "; ".join(dict.fromkeys(self._version(peer) for peer in peers().values() if not self.lacks(peer)))

    def _version(self, peer: Peer) -> str:
        found = [f"{name} {self._pypi[name]}" for name in map(distribution, peer.pypi)]
        if peer.versions:
            told = subprocess.run(
                peer.versions, capture_output=True, text=True, check=False, env={**os.environ, "PATH": PATH}
            )
            number = re.search(r"\d[\d.]*\d", told.stdout or told.stderr)
            found.append(f"{peer.versions[0]} {number[0] if number else '?'}")
        return " with ".join(found)

    def _has(self, peer: Peer) -> bool:
        return all(distribution(name) in self._pypi for name in peer.pypi)

    def _versions(self) -> dict[str, str]:
        if not self.python.exists():
            return {}
        told = subprocess.run([self.python, "-c", ASK_VERSIONS], capture_output=True, text=True, check=True).stdout
        versions: dict[str, str] = json.loads(told)
        return versions

    def _debian(self, packages: list[str]) -> None:
        """Install packages; no service of theirs starts."""
        said(f"installing {' '.join(packages)} from Debian")
        policy = Path("/usr/sbin/policy-rc.d")
        is_mine = not policy.exists()
        if is_mine:
            policy.write_text(NO_START)
            policy.chmod(0o755)
        try:
            run("apt-get", "update", "-q")
            run("apt-get", "install", "-q", "-y", "--no-install-recommends", *packages)
        finally:
            if is_mine:
                policy.unlink()


def distribution(requirement: str) -> str:
    """Return the name of a requirement: `celery[redis]` is `celery`."""
    return requirement.partition("[")[0]


def run(*arguments: str) -> None:
    """Run an installer; what it cannot do is said, and the peer will be left out for it."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        said(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()[-300:]}")


def said(text: str) -> None:
    """Tell what goes on, beside the table."""
    print(text, file=sys.stderr, flush=True)
