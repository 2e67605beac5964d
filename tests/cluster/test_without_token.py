"""A Ray that gencomp starts tells nothing to a process that has no token."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

import grpc
import pytest

from tests.cluster.without_token import CALLS, NODES, answer, page, refuses
from tests.processes import ENVIRONMENT, descendants, listening_at

pytestmark = pytest.mark.long

# A cluster with a worker; it says its token and waits for the end of its input.
CLUSTER = """
import os, sys
from pathlib import Path
from cluster import ray_runtime
with ray_runtime.cluster(cpus=1):
    import ray
    class Actor:
        def lives(self):
            return True
    actor = ray.remote(Actor).remote()
    assert ray.get(actor.lives.remote())
    print(Path(os.environ["RAY_AUTH_TOKEN_PATH"]).read_text(), flush=True)
    sys.stdin.read()
"""


class Running(NamedTuple):
    token: str
    ports: dict[tuple[str, int], str]  # where something listens, and its command line


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        token = process.stdout.readline().strip()
        assert token
        driver = {one for one in descendants(os.getpid()) if one.pid == process.pid}
        below = driver | descendants(process.pid)
        yield Running(token, {at: one.command() for one in below for at in listening_at({one})})
        process.communicate()


def test_no_call_is_answered(running: Running) -> None:
    told = {(at, call): answer(at, call) for at in running.ports for call in CALLS}
    assert len(running.ports) >= 4
    answered = {
        (running.ports[at], call) for (at, call), code in told.items() if code.value[0] == 0
    }
    assert not answered
    # Every service is there to refuse: without this, the calls might only have been misspelt.
    refused = {call for (_, call), code in told.items() if code is grpc.StatusCode.UNAUTHENTICATED}
    assert refused >= set(CALLS[:7]), told
    with_token = [answer(at, NODES, running.token) for at in running.ports]
    assert grpc.StatusCode.OK in with_token
    assert grpc.StatusCode.OK not in [answer(at, NODES, "0" * 64) for at in running.ports]


def test_no_page_is_shown(running: Running) -> None:
    for at, command in running.ports.items():
        assert refuses(page(at)), command
