"""Checkpoints are written while training goes on.

`Saver.save` copies everything into host memory, and the training loop waits only for that. A thread
hashes the copy, writes it and renames the directory, while training may change the weights in
place. At most one checkpoint is being written at a time, so there is at most one copy in memory,
and the next checkpoint uses its memory again.
"""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from cluster.checkpoints import retention, store
from cluster.checkpoints.store import Content
from gencomp.exit_codes import FAILED

log = logging.getLogger(__name__)

Kept = Callable[[Iterable[int]], set[int]]
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


class SavingError(OSError):
    """A checkpoint could not be written or copied. The message is one sentence with the remedy.

    The last whole checkpoint is unchanged.
    """

    exit_code = FAILED


class Copies(Protocol):
    """Something that copies whole checkpoints to another place, beside the training."""

    def send(self) -> None:
        """Begin to copy what is new, without waiting."""

    def under_way(self) -> int | None:
        """The step of the checkpoint that is being read now."""

    def flush(self) -> None:
        """Wait until everything is copied; raises `SavingError`."""

    def close(self) -> None:
        """Interrupt the copying that is under way."""


class Saver:
    """Writes the checkpoints of one run and removes those that need not be kept.

    Args:
        directory: the directory of the checkpoints.
        kept: a function that takes the steps of all checkpoints and gives those to keep.
        background: whether to write in a thread; otherwise `save` returns when all is on the disk.
        copies: the copier that also takes whole checkpoints to another place.
    """

    def __init__(
        self,
        directory: Path,
        kept: Kept,
        background: bool = True,
        copies: Copies | None = None,
    ) -> None:
        self._directory, self._kept, self._copies = directory, kept, copies
        self._background = background
        self._memory = HostMemory()
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._newest: int | None = None
        if copies is not None:
            copies.send()  # an earlier process may have ended before it had copied everything

    def save(self, content: Content) -> None:
        """Begin to write a checkpoint, once the one before has been written.

        Raises:
            SavingError: this checkpoint or the one before could not be written.
            InputError: the evaluations lack the metric by which the best checkpoints are kept.
        """
        self._wait()
        if self._background:
            copy = self._memory.copy(content)
            self._thread = threading.Thread(
                target=self._write_in_thread, args=(copy,), name=f"checkpoint-{content.step}"
            )
            self._thread.start()
        else:
            self._write(_mapped(content, lambda path, tensor: tensor.detach().cpu()))

    def flush(self) -> None:
        """Wait until every checkpoint is on the disk and copied; raises the errors of `save`."""
        self._wait()
        if self._copies is not None:
            self._copies.flush()
            if self._newest is not None:
                # The last save had to keep the checkpoint that was being copied at that time.
                self._prune(self._newest)

    def close(self) -> None:
        """End all threads. An error that has not been raised yet is logged."""
        try:
            self._wait()
        except Exception as error:
            log.error("%s", error)
        if self._copies is not None:
            self._copies.close()

    def _wait(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _write_in_thread(self, content: Content) -> None:
        try:
            self._write(content)
        except Exception as error:  # the training loop raises it later
            self._error = error

    def _write(self, content: Content) -> None:
        try:
            store.write(self._directory, content)
            self._newest = content.step
            if self._copies is not None:
                self._copies.send()
            self._prune(content.step)
        except OSError as error:
            raise SavingError(self._sentence(content.step, error)) from error

    def _prune(self, newest: int) -> None:
        steps = {store.step_of(path) for path in store.directories(self._directory)}
        # Newer checkpoints were rejected when an older one was taken; they must not count.
        kept = self._kept(step for step in steps if step <= newest)
        if self._copies is not None and (step := self._copies.under_way()) is not None:
            kept.add(step)
        retention.prune(self._directory, kept)

    def _sentence(self, step: int, error: OSError) -> str:
        steps = map(store.step_of, store.directories(self._directory))
        older = [found for found in steps if found < step]
        rest = f"goes on from step {max(older)}" if older else "starts again"
        return (
            f"the checkpoint of step {step} could not be written to {self._directory}: "
            f"{error.strerror or error}; {mend_of(error)}, and the same command {rest}"
        )


def has_no_room(error: OSError) -> bool:
    """Whether an error says that a disk, or the user's quota on it, is full."""
    return error.errno in _NO_ROOM


def mend_of(error: OSError) -> str:
    """The remedy for an error of writing, as part of a sentence."""
    if has_no_room(error):
        return "make room"
    return "allow writing there" if error.errno in _FORBIDDEN else "mend that"


class HostMemory:
    """Memory of this machine that holds one copy of a content and is reused for the next copy.

    Buffers for a GPU's tensors are pinned, so that they are filled at the speed of the bus.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[Any, ...], Tensor] = {}

    def copy(self, content: Content) -> Content:
        """A real copy: its tensors have the same dtype, shape and strides, but share no memory.

        The copy is valid until the next one is made.
        """
        before, self._buffers = self._buffers, {}
        devices: set[torch.device] = set()

        def copied(path: tuple[Any, ...], tensor: Tensor) -> Tensor:
            buffer = before.pop(path, None)
            if buffer is None or not _fits(buffer, tensor):
                buffer = torch.empty_like(
                    tensor, device="cpu", pin_memory=tensor.is_cuda, requires_grad=False
                )
            self._buffers[path] = buffer
            devices.add(tensor.device)
            return buffer.copy_(tensor.detach(), non_blocking=True)

        copy: Content = _mapped(content, copied)
        for device in devices - {torch.device("cpu")}:
            torch.cuda.synchronize(device)
        return copy


def _mapped(
    tree: Any, tensor: Callable[[tuple[Any, ...], Tensor], Tensor], path: tuple[Any, ...] = ()
) -> Any:
    """The same tree of contents, mappings, lists and tuples, with every tensor replaced."""
    if isinstance(tree, Tensor):
        return tensor(path, tree)
    if isinstance(tree, Content):
        return Content(
            **{f.name: _mapped(getattr(tree, f.name), tensor, (f.name,)) for f in fields(tree)}
        )
    if isinstance(tree, Mapping):
        return {key: _mapped(value, tensor, (*path, key)) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_mapped(value, tensor, (*path, i)) for i, value in enumerate(tree))
    return tree


def _fits(buffer: Tensor, tensor: Tensor) -> bool:
    return (
        buffer.dtype == tensor.dtype
        and buffer.shape == tensor.shape
        and buffer.stride() == tensor.stride()
    )
