"""Waiting for jobs on a real Slurm."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import ROOT

Condition = Callable[[], object]


def wait_for(condition: Condition, seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, subprocess.getoutput("squeue --states=all -r")
        time.sleep(0.05)


@contextmanager
def waiting(words: list[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A command that submits and waits, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (folder / "waiting.out").open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "gencomp.cli", *words, "--wait"],
            cwd=ROOT,
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
