"""The worker's process as its driver sees it. This needs no torch, so the process starts early."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from cluster import processes
from cluster.one_process import pulse
from cluster.ray_runtime import WORKER_ENVIRONMENT

# One thread, as Ray gives to a worker, so that the same recipe gives the same bits either way.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", **WORKER_ENVIRONMENT}
# The signals with which terminals and Slurm stop everything: the driver alone answers them.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)
_LAST_BYTES = 1 << 15  # enough for the stacks of all threads


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
        here, of_worker = os.pipe()
        with processes.deaf(*_SIGNALS):
            self._process = subprocess.Popen(
                # -P: nothing in the current directory is taken for a module of ours.
                [sys.executable, "-P", "-X", "faulthandler", "-m", "cluster.one_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={**_ENVIRONMENT, **os.environ},
                pass_fds=[of_worker],
            )
        os.close(of_worker)
        self._pulse, self._of_worker = os.fdopen(here, "rb", buffering=0), of_worker
        self.pid = self._process.pid
        self._said = b""
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *error: Any) -> None:
        self._process.kill()
        self._process.wait()
        self._listener.join(timeout=1)
        for stream in (self._process.stdin, self._process.stderr, self._pulse):
            assert stream is not None
            with suppress(BrokenPipeError):
                stream.close()

    def begin(self, task: Mapping[str, Any]) -> None:
        """Hand over the task, as `cluster.one_process.fit` makes it."""
        assert self._process.stdin is not None
        task = {**task, "pulse": self._of_worker}
        # A process that has ended already counts as failed.
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(task).encode() + b"\n")
            self._process.stdin.flush()

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def listen(self, stall_seconds: float) -> pulse.Listener:
        """The listener to this worker's pulse."""
        return pulse.Listener(self.pid, self._pulse.fileno(), stall_seconds)

    def abort(self) -> None:
        """End a process whose interpreter hangs; it writes the stacks of its threads first."""
        self._process.send_signal(signal.SIGABRT)

    def end(self) -> End:
        """Wait for the end of the process."""
        code = self._process.wait()
        self._listener.join(timeout=5)  # its own children may hold the pipe
        return End(code, self._said.decode(errors="replace").strip())

    def _listen(self) -> None:
        """Keep the last of what the process writes on its error stream."""
        assert self._process.stderr is not None
        descriptor = self._process.stderr.fileno()
        while more := os.read(descriptor, _LAST_BYTES):
            self._said = (self._said + more)[-_LAST_BYTES:]
