"""Waiting for jobs on a real Slurm."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import ROOT
from tests.waiting import wait_for


def until(condition: Callable[[], object]) -> None:
    """Return when a condition is true; the queue says why it does not become so."""
    assert wait_for(condition, pause=0.05), subprocess.getoutput("squeue --states=all -r")


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
