"""What a fresh process shows of files, with another number of threads, and oneDNN off or on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

_SETTINGS = """
import sys, torch
torch.set_num_threads(int(sys.argv[2]))
torch.backends.mkldnn.enabled = sys.argv[3] == "on"
"""


def printed(reader: str, folder: Path, threads: int, dnn: str) -> list[str]:
    """The words that a program prints in a process of its own.

    Args:
        reader: the program, which finds the folder in sys.argv[1].
        folder: the folder.
        threads: the number of threads.
        dnn: off or on.
    """
    done = subprocess.run(
        [sys.executable, "-c", _SETTINGS + reader, str(folder), str(threads), dnn],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
