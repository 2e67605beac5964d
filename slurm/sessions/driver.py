"""`gencomp train` or `gencomp sweep` as a child process that can be asked to save and leave."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, Any

from gencomp.errors import InputError
from gencomp.exit_codes import BAD_INPUT, DONE, ERROR, SPEAKER, STOPPED
from slurm.sessions import child_processes

_POLL_SECONDS = 0.1


class DriverDied(RuntimeError):
    """The driver was killed, or Ray took it along; another one may be started."""


class Driver:
    """A driver that runs from the construction to the end of a `with` block.

    Args:
        words: of the command line, after `gencomp`.
        environment: all of its variables.
        patience: seconds that it may take to save before it is killed.
    """

    def __init__(
        self, words: Sequence[str], environment: Mapping[str, str], patience: float
    ) -> None:
        self._words, self._patience = words, patience
        with child_processes.deaf():
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-m", "gencomp.cli", *words],
                env=environment,
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
        assert self._process.stderr is not None
        self._errors: list[str] = []
        self._relay = threading.Thread(target=self._pass_on, args=(self._process.stderr,))
        self._relay.daemon = True
        self._relay.start()

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.stop()

    def has_ended(self) -> bool:
        return child_processes.has_ended(self._process.pid)

    def stop(self) -> None:
        """Ask it to save and leave, once; a signal handler may interrupt this, and stop it too."""
        if not self.has_ended():
            self._process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + self._patience
        while not self.has_ended() and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        if not self.has_ended():
            self._process.kill()

    def outcome(self) -> bool:
        """How it ended: True when all is done, False when it was stopped at a checkpoint.

        Raises:
            InputError: it refused its input, with its sentence.
            DriverDied: it said nothing.
            RuntimeError: it failed, with its sentence.
        """
        code = self._process.wait()
        self._relay.join(timeout=5)  # what it left may hold the pipe
        if code in (DONE, STOPPED):
            return code == DONE
        said = next((line for line in reversed(self._errors) if line.startswith(SPEAKER)), "")
        if code == BAD_INPUT and said.startswith(ERROR):
            raise InputError(said.removeprefix(ERROR))
        if code < 0 or not said:
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            raise DriverDied(f"`gencomp {self._words[0]}` {how}")
        raise RuntimeError(f"`gencomp {self._words[0]}`: {said.removeprefix(SPEAKER)}")

    def _pass_on(self, stream: IO[str]) -> None:
        """Its error stream into ours; the last lines are kept."""
        for line in stream:
            self._errors = [*self._errors[-9:], line.rstrip("\n")]
            with suppress(OSError):  # a full disk must not stop the driver at a full pipe
                sys.stderr.write(line)
                sys.stderr.flush()
