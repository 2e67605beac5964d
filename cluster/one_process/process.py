"""The worker's process as its driver sees it. This needs no torch, so the process starts early."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from cluster import processes
from cluster.ray_runtime import WORKER_ENVIRONMENT

# One thread, as Ray gives to a worker, so that the same recipe gives the same bits either way.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", **WORKER_ENVIRONMENT}
# The signals with which terminals and Slurm stop everything: the driver alone answers them.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)
_LAST_BYTES = 5000


class End(NamedTuple):
    """The end of a worker's process.

    Attributes:
        code: its exit code, negative where a signal killed it.
        said: the last of what it wrote on its error stream.
    """

    code: int
    said: str


class WorkerProcess:
    """A process that imports what training needs, and trains when it is told its task.

    It is killed at the end of a `with` block, and ends by itself when this process dies.

    Attributes:
        pid: the number of the process.
    """

    def __init__(self) -> None:
        self._errors = tempfile.TemporaryFile()
        with processes.deaf(*_SIGNALS):
            self._process = subprocess.Popen(
                # -P: nothing in the current directory is taken for a module of ours.
                [sys.executable, "-P", "-X", "faulthandler", "-m", "cluster.one_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                env={**_ENVIRONMENT, **os.environ},
            )
        self.pid = self._process.pid

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *error: Any) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._errors.close()

    def begin(self, task: Mapping[str, Any]) -> None:
        """Hand over the task, as `cluster.one_process.fit` makes it."""
        assert self._process.stdin is not None
        with suppress(
            BrokenPipeError
        ):  # a process that has ended already has failed like any other
            self._process.stdin.write(json.dumps(task).encode() + b"\n")
            self._process.stdin.flush()

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def end(self) -> End:
        """Wait for the end of the process."""
        code = self._process.wait()
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - _LAST_BYTES))
        return End(code, self._errors.read().decode(errors="replace").strip())
