"""Locks on directories: a directory has one writer, also on file systems that many hosts share.

    lock           the file for `flock`; the kernel frees it when the holder dies, for any reason
    lock.000007    the record that names the seventh holder; its modification time is a heartbeat

The record with the highest number names the holder, since `flock` may be missing, or be known to
one host only: a host that serves its own disk to others sees a local file system, and none of their
locks. Only if the record names this very kernel does `flock` decide. Number n + 1 is claimed by
creating its file, which exactly one process can do. A process that claims a number late, when a
higher one exists, withdraws. The file of the highest number stays when its holder leaves, so that
numbers never start again. A holder is dead if its process is gone from this host, or, on another
host (or before this one was started anew), if its record has had no heartbeat for `SILENCE` seconds
of the file server's clock and none while it was watched from here.

The guarantee: no two processes hold a directory as long as heartbeats are late by less than
`SILENCE`. A holder that was stopped for longer (SIGSTOP, a host that hung) finds out at its next
`Lease.require`, which its writers call before each write. A write that was under way when the
holder was stopped may still be completed.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import platform
import secrets
import shlex
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import IO

from cluster import processes
from gencomp.errors import InputError

log = logging.getLogger(__name__)

HEARTBEAT = 10.0  # seconds
SILENCE = 60.0  # seconds
# A beat is missed after this many times `HEARTBEAT`.
_MISSED = 2.5
# The clocks of hosts that share files do not differ by more, in seconds.
_LARGEST_SKEW = 3600.0
_PREFIX = "lock."
# The errors of a record file that vanishes while it is read; NFS calls its handle stale.
_VANISHED = (errno.ENOENT, errno.ESTALE)


class LockLost(RuntimeError):
    """Raised where another process has taken over a directory that this process held."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a directory, as its record describes it.

    Attributes:
        token: a word that no two holders share.
        born: the time at which the process was started, in the kernel's ticks.
        place: the running kernel and the namespace in which `pid` names the process.
        since: the time since when it holds, in seconds since 1970 by the clock of `host`.
        released: whether it has left.
    """

    token: str
    host: str
    pid: int
    born: int | None
    place: str
    since: float
    released: bool = False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def is_here(self) -> bool:
        """Whether this process can see the process of the holder."""
        return self.place != "" and self.place == _place()

    @property
    def is_on_this_kernel(self) -> bool:
        """Whether the kernel that runs this process runs the holder, maybe in another container."""
        return self.place != "" and self.place.split()[0] == _place().partition(" ")[0]

    def lives(self) -> bool:
        """Whether the process still runs; this is known only if the holder `is_here`."""
        return self.born is not None and processes.born(self.pid) == self.born


@dataclass(frozen=True)
class Lease:
    """A hold on a directory, which the holder may hand to other processes that write for it.

    Attributes:
        predecessor: the dead process from which the directory was taken over, if there was one.
    """

    directory: Path
    number: int
    token: str
    predecessor: str | None = None

    def require(self) -> None:
        """Raise `LockLost` unless the directory is still held."""
        if not self._is_held():
            now = newest(self.directory)
            by = f" by {now[1]}" if now else ""
            raise LockLost(
                f"{self.directory} was taken over{by}: its holder here had given no sign of life"
                f" for {SILENCE:.0f} s, so nothing more is written here"
            )

    def beat(self) -> bool:
        """Give a sign of life. The result is False if the directory is not held any more."""
        return self._is_held(touch=True)

    def _is_held(self, touch: bool = False) -> bool:
        # The file is opened anew each time, since only then does NFS ask the server.
        try:
            with _record(self.directory, self.number).open("rb") as file:
                if _parse(file.read()).token != self.token:
                    return False
                if touch:
                    os.utime(file.fileno())
                return True
        except OSError as error:
            if error.errno in _VANISHED:
                return False
            raise


@contextmanager
def locked(directory: Path, refusal: str = "{directory} is in use by {holder}") -> Iterator[Lease]:
    """Hold a directory against a second writer.

    If the holder was on another host, or this host was started anew since, this waits until it is
    clear whether the holder is alive: until its next heartbeat if it is, until about `SILENCE`
    seconds after its last one if it is not.

    Args:
        directory: the directory of a run, a sweep or an evaluation.
        refusal: the sentence for the second writer, with fields for the `directory`, its `holder`,
            and the directory `quoted` for a shell.

    Raises:
        InputError: another process holds the directory now.
    """
    with (directory / "lock").open("ab") as file:
        lease = _acquire(directory, file, refusal)
        stop = threading.Event()
        thread = threading.Thread(target=_beat, args=(lease, stop), name="lock", daemon=True)
        thread.start()
        try:
            yield lease
        finally:
            stop.set()
            thread.join()
            _release(lease)


def lock_holder(directory: Path) -> int | None:
    """The number of the process on this machine that holds the directory, if there is one."""
    found = newest(directory)
    if found is None or found[1].released or not found[1].is_here or not found[1].lives():
        return None
    return found[1].pid


def living(directory: Path) -> tuple[Holder, float] | None:
    """The living holder of a directory, and the age of its last sign of life in seconds.

    Nothing is written. The clock of this host is not that of a holder elsewhere, so that one whose
    last sign of life looks old is watched until a beat comes or is missed.
    """
    found = newest(directory) if directory.is_dir() else None
    if found is None or found[1].released:
        return None
    number, holder = found
    if holder.is_here:
        return (holder, 0.0) if holder.lives() else None
    with suppress(FileNotFoundError):
        last = heartbeat(directory, number)
        age = time.time() - last
        if age < SILENCE:
            return holder, max(age, 0.0)
        end = time.monotonic() + _MISSED * HEARTBEAT
        while age < _LARGEST_SKEW and time.monotonic() < end:
            time.sleep(HEARTBEAT / 10)
            if heartbeat(directory, number) != last:
                return holder, 0.0
    return None


def newest(directory: Path) -> tuple[int, Holder] | None:
    """The number and content of the newest record, whose holder may have left or died."""
    while numbers := _numbers(directory):
        with suppress(FileNotFoundError):
            return numbers[-1], _parse(_record(directory, numbers[-1]).read_bytes())
    return None


def heartbeat(directory: Path, number: int) -> float:
    """The time of a holder's last sign of life, in seconds since 1970 by the file system's clock.

    Raises:
        FileNotFoundError: the record is gone.
    """
    try:
        with _record(directory, number).open("rb") as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError as error:
        if error.errno in _VANISHED:
            raise FileNotFoundError(error.errno, error.strerror) from None
        raise


def _acquire(directory: Path, file: IO[bytes], refusal: str) -> Lease:
    while True:
        ours = _flock(file)  # this is tried again after a wait for a holder elsewhere
        found = newest(directory)
        holder = None if found is None or found[1].released else found[1]
        if _in_use(directory, file, ours, found):
            who = holder or "another process"
            quoted = shlex.quote(str(directory))
            raise InputError(refusal.format(directory=directory, holder=who, quoted=quoted))
        if found != newest(directory):  # the record has changed while we watched
            continue
        lease = _claim(directory, 1 + (found[0] if found else 0), holder)
        if lease is not None:
            return lease


def _in_use(
    directory: Path, file: IO[bytes], ours: bool | None, found: tuple[int, Holder] | None
) -> bool:
    """Whether a living process holds a directory.

    Args:
        ours: whether we got the `flock`; None if the file system has none.
        found: the newest record.
    """
    if found is None or found[1].released:
        return ours is False
    number, holder = found
    if ours is not None and holder.is_on_this_kernel:
        return not ours
    if holder.is_here:
        return holder.lives()
    return not _fell_silent(directory, file, number, holder)


def _fell_silent(directory: Path, file: IO[bytes], number: int, holder: Holder) -> bool:
    """Watch a holder on another host until it is clear whether it is dead.

    Returns:
        True if the holder is dead, or if the record has gone, so that the caller must look again.
    """
    longest = SILENCE + 3 * HEARTBEAT
    log.warning("%s: waiting up to %.0f s whether %s still lives", directory, longest, holder)
    started = time.monotonic()
    with suppress(FileNotFoundError):
        last = heartbeat(directory, number)
        while heartbeat(directory, number) == last:
            # This reads the clock of the file server, which also stamps the heartbeats.
            os.utime(file.fileno())
            age = os.fstat(file.fileno()).st_mtime - last
            # A server that hung makes all heartbeats old, so a beat must be missed while we watch.
            if age > SILENCE and time.monotonic() - started > _MISSED * HEARTBEAT:
                log.warning("%s: %s was last seen %.0f s ago: taking over", directory, holder, age)
                return True
            time.sleep(HEARTBEAT / 10)
        found = newest(directory)
        return found is None or found[1].released or found[1].token != holder.token
    return True


def _claim(directory: Path, number: int, predecessor: Holder | None) -> Lease | None:
    """Become the holder with a number. The result is None if another process was faster."""
    mine = Holder(
        token=secrets.token_hex(8),
        host=platform.node(),
        pid=os.getpid(),
        born=processes.born(os.getpid()),
        place=_place(),
        since=round(time.time(), 3),
    )
    path = _record(directory, number)
    try:
        with path.open("xb", buffering=0) as file:
            file.write(_dump(mine))
            os.fsync(file.fileno())
    except FileExistsError:
        return None
    numbers = _numbers(directory)
    if numbers[-1] != number:
        # Our view was old: others have come and gone since.
        path.unlink(missing_ok=True)
        return None
    for lower in numbers[:-1]:
        _record(directory, lower).unlink(missing_ok=True)
    # It may be handed to processes that were started elsewhere.
    place = directory.absolute()
    return Lease(place, number, mine.token, str(predecessor) if predecessor else None)


def _release(lease: Lease) -> None:
    if not lease.beat():
        return
    path = _record(lease.directory, lease.number)
    left = Holder(**{**asdict(_parse(path.read_bytes())), "released": True})
    temporary = lease.directory / f".{path.name}.{lease.token}"
    try:
        temporary.write_bytes(_dump(left))
        temporary.replace(path)
    except OSError as error:  # on a full disk, the missing heartbeats will show the release later
        log.warning("%s could not be given back: %s", lease.directory, error)
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _beat(lease: Lease, stop: threading.Event) -> None:
    """Give heartbeats until `stop` is set. This is the work of the heartbeat's thread."""
    while not stop.wait(HEARTBEAT):
        try:
            if not lease.beat():
                log.error("%s was taken over by another process", lease.directory)
                return
        except OSError as error:
            log.warning("no heartbeat in %s: %s", lease.directory, error)


def _record(directory: Path, number: int) -> Path:
    return directory / f"{_PREFIX}{number:06d}"


def _numbers(directory: Path) -> list[int]:
    names = [name for name in os.listdir(directory) if name.startswith(_PREFIX)]
    found = [name.removeprefix(_PREFIX) for name in names]
    return sorted(int(number) for number in found if number.isdecimal())


def _dump(holder: Holder) -> bytes:
    return json.dumps(asdict(holder)).encode() + b"\n"


def _parse(text: bytes) -> Holder:
    """The holder in a record; if the record is not whole (yet), the holder is a stranger."""
    try:
        return Holder(**json.loads(text))
    except (ValueError, TypeError):
        return Holder(text.hex(), "an unknown host", 0, None, "", 0.0)


def _flock(file: IO[bytes]) -> bool | None:
    """Whether this process now has the `flock`; None if the file system has none."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL):
            return None
        raise


@cache
def _place() -> str:
    """The name of the running kernel and its process namespace; empty if that is not known."""
    boot = processes.boot_id()
    try:
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}" if boot else ""
    except OSError:
        return ""
