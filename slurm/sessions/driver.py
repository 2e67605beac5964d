"""`gencomp train` or `gencomp sweep` as a child process that can be asked to save and leave."""

from __future__ import annotations

import platform
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from gencomp.errors import InputError
from gencomp.exit_codes import BAD_INPUT, DONE, ERROR, SPEAKER, STOPPED
from slurm.sessions import child_processes
from slurm.sessions.error_stream import ErrorStream

_POLL_SECONDS = 0.1


class DriverDied(RuntimeError):
    """The driver was killed, or Ray has died and taken it along; another one may be started."""


class Driver:
    """A driver that runs from its construction to the end of a `with` block.

    Args:
        words: the words of the command line, after `gencomp`.
        environment: all environment variables of the driver.
        save_seconds: the time in which the driver must save, in seconds, before it is killed.
    """

    def __init__(
        self, words: Sequence[str], environment: Mapping[str, str], save_seconds: float
    ) -> None:
        self._words, self._save_seconds = words, save_seconds
        with child_processes.deaf():
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-u", "-m", "gencomp.cli", *words],
                env=environment,
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
            )
        assert self._process.stderr is not None
        self._errors = ErrorStream(self._process.stderr)

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.stop()

    def has_ended(self) -> bool:
        return child_processes.has_ended(self._process.pid)

    def stop(self) -> None:
        """Ask the driver to save and leave, and kill it if it takes too long.

        A signal handler may interrupt this and call it as well.
        """
        if not self.has_ended():
            self._process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + self._save_seconds
        while not self.has_ended() and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        if not self.has_ended():
            self._process.kill()

    def outcome(self) -> bool:
        """The outcome: True if all is done, False if the driver was stopped at a checkpoint.

        Raises:
            InputError: the driver refused its input; the message is the driver's sentence.
            DriverDied: the driver ended without a sentence.
            RuntimeError: the driver failed; the message holds the driver's sentence.
        """
        code = self._process.wait()
        if code in (DONE, STOPPED):
            return code == DONE
        lines = reversed(self._errors.lines())
        said = next((line for line in lines if line.startswith(SPEAKER)), "")
        if code == BAD_INPUT and said.startswith(ERROR):
            raise InputError(said.removeprefix(ERROR))
        if code < 0 or not said:
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            raise DriverDied(f"`gencomp {self._words[0]}` {how} on {platform.node()}")
        raise RuntimeError(f"`gencomp {self._words[0]}`: {said.removeprefix(SPEAKER)}")
