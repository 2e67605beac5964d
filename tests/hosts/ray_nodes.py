"""Ray as its users start it, on hosts of a test."""

from __future__ import annotations

import secrets
import subprocess
import sys
from pathlib import Path

from tests.hosts.hosts import Hosts
from tests.waiting import wait_for

_PORT = 6379
_OBJECT_STORE_BYTES = 80 * 2**20


class RayNodes:
    """A Ray cluster whose head is on n1, started as docs/training.md says.

    Args:
        hosts: the hosts.
        folder: a directory that all of them share, for the token and for what Ray says.
        options: further words of `ray start` for each host, by its name.

    Attributes:
        environment: the variables with which a driver joins the cluster.
    """

    def __init__(
        self, hosts: Hosts, folder: Path, options: dict[str, list[str]] | None = None
    ) -> None:
        self._hosts, self._folder, self._options = hosts, folder, options or {}
        token = folder / "ray.token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32), encoding="utf-8")
        head = f"{hosts.address('n1')}:{_PORT}"
        self._access = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        self.environment = {**self._access, "RAY_ADDRESS": head}
        self.start("n1", "--head", f"--port={_PORT}", "--include-dashboard=false")
        for name in hosts.names[1:]:
            self.join(name)

    def join(self, name: str) -> None:
        """Start Ray on a host other than the head's."""
        self.start(name, f"--address={self.environment['RAY_ADDRESS']}")

    def start(self, name: str, *words: str) -> None:
        common = ["--num-cpus=1", "--disable-usage-stats", "--block"]
        common += [f"--object-store-memory={_OBJECT_STORE_BYTES}"]
        said = self._folder / f"ray-{name}"
        with said.open("w", encoding="utf-8") as out:
            process = self._hosts.start(
                name,
                *(sys.executable, "-m", "ray.scripts.scripts", "start", *words, *common),
                *self._options.get(name, []),
                env=self._access,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        started = "Ray runtime started."
        assert wait_for(lambda: process.poll() is not None or started in said.read_text("utf-8"))
        assert process.poll() is None, said.read_text("utf-8")
