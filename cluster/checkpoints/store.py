"""Checkpoints are directories that are whole or do not exist.

A checkpoint is written under a temporary name, hashed into `manifest.json` (written last), and
renamed to `step-<number>`. Loading checks sizes and hashes; a checkpoint that fails the check is
named in a warning, and the next older one is taken.

    step-000000200/
        networks.safetensors   every network of the system, parameters and buffers
        averages.safetensors   the networks' moving averages, if the recipe asks for them
        optimizers.pt          one state per phase
        progress.json          step, samples consumed, world size
        frozen.json            hash of the system's frozen networks, if it has any
        manifest.json          size and xxh3_128 of each file above
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any, Literal, Self, cast

import safetensors.torch
import torch
import xxhash
from pydantic import Field
from torch import Tensor

from cluster import tensor_files
from gencomp.errors import InputError

log = logging.getLogger(__name__)

NETWORKS = "networks.safetensors"
AVERAGES = "averages.safetensors"
OPTIMIZERS = "optimizers.pt"
PROGRESS = "progress.json"
FROZEN = "frozen.json"
MANIFEST = "manifest.json"
FILES = (NETWORKS, AVERAGES, OPTIMIZERS, PROGRESS, FROZEN, MANIFEST)
_CHUNK = 1 << 22
_PIECE = 1 << 20


# The choice of a run's checkpoint: the newest one, the best one by the recipe's keep_best_metric,
# or the one of a step.
Choice = Literal["last", "best"] | Annotated[int, Field(ge=0)]
LAST: Choice = "last"


class CorruptCheckpoint(InputError):
    """A checkpoint whose files are not those of its manifest."""


@dataclass(frozen=True)
class Content:
    """The content of a checkpoint.

    Attributes:
        networks: the state of all networks.
        optimizers: the state of each phase's optimizer.
        progress: `step`, `samples` and `world`.
        averages: the moving averages of the networks, if there are any.
        frozen: the hash of the networks that are never saved, if there are any.
    """

    networks: Mapping[str, Tensor]
    optimizers: Mapping[str, Any]
    progress: Mapping[str, int]
    averages: Mapping[str, Tensor] | None = None
    frozen: str | None = None

    @property
    def step(self) -> int:
        return self.progress["step"]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint directory that was whole when it was found.

    Attributes:
        path: the directory.
        averaged: whether its networks are those that evaluations during training use: the moving
            averages, if there are any.
    """

    path: Path
    averaged: bool = False

    @property
    def step(self) -> int:
        return step_of(self.path)

    def networks(self) -> dict[str, Tensor]:
        """The state of all networks, on the CPU."""
        if self.averaged and (averages := self.averages()) is not None:
            prefix = "module."  # the only other tensor is the number of averaged weights
            return {
                name.removeprefix(prefix): tensor
                for name, tensor in averages.items()
                if name.startswith(prefix)
            }
        return safetensors.torch.load_file(self.path / NETWORKS)

    def averages(self) -> dict[str, Tensor] | None:
        """The moving averages of the networks, on the CPU; None if there are none."""
        path = self.path / AVERAGES
        return safetensors.torch.load_file(path) if path.exists() else None

    def optimizers(self) -> dict[str, Any]:
        """The state of each phase's optimizer, on the CPU."""
        return torch.load(self.path / OPTIMIZERS, map_location="cpu", weights_only=True)

    def progress(self) -> dict[str, int]:
        return json.loads((self.path / PROGRESS).read_text(encoding="utf-8"))

    def frozen_hash(self) -> str | None:
        """The hash of the frozen networks that these weights belong to; None if there are none."""
        path = self.path / FROZEN
        return json.loads(path.read_text(encoding="utf-8"))["xxh3_128"] if path.exists() else None

    def networks_hash(self) -> str:
        """A hash that identifies the system: the hash of its weights and its frozen networks.

        Without frozen networks, it is the hash of the weights' file that the manifest states.
        """
        manifest = json.loads((self.path / MANIFEST).read_text(encoding="utf-8"))
        name = AVERAGES if self.averaged and AVERAGES in manifest else NETWORKS
        weights: str = manifest[name]["xxh3_128"]
        frozen = self.frozen_hash()
        return (
            weights if frozen is None else xxhash.xxh3_128_hexdigest(f"{weights} {frozen}".encode())
        )


def parse_choice(text: str) -> Choice:
    """The checkpoint that `--checkpoint` names.

    Raises:
        InputError: the text is neither last, best nor a step.
    """
    match text:
        case "last" | "best":
            return text
        case _ if text.isascii() and text.isdecimal():
            return int(text)
    raise InputError(f"--checkpoint {text!r} must be last, best or the step of a checkpoint")


def write(directory: Path, content: Content) -> Checkpoint:
    """Write the checkpoint of a step; it is on the disk when this returns.

    Args:
        directory: the directory of the checkpoints, to which no other process may write.
        content: the content, with tensors on the CPU. Each file is hashed while it is written, so
            nothing is read again and no second copy of all tensors is made.

    Raises:
        OSError: the disk is full or not writable; older checkpoints are untouched and nothing is
            left behind.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with partial(directory, content.step) as place:
        manifest = {NETWORKS: _write_tensors(place / NETWORKS, content.networks)}
        if content.averages is not None:
            manifest[AVERAGES] = _write_tensors(place / AVERAGES, content.averages)
        with HashedFile(place / OPTIMIZERS) as file:
            torch.save(dict(content.optimizers), cast(IO[bytes], file))
        manifest[OPTIMIZERS] = file.described()
        with HashedFile(place / PROGRESS) as file:
            file.write(json.dumps(dict(content.progress)).encode())
        manifest[PROGRESS] = file.described()
        if content.frozen is not None:
            with HashedFile(place / FROZEN) as file:
                file.write(json.dumps({"xxh3_128": content.frozen}).encode())
            manifest[FROZEN] = file.described()
        with HashedFile(place / MANIFEST) as file:
            file.write(json.dumps(manifest, indent=1, sort_keys=True).encode())
    return Checkpoint(directory / name_of(content.step))


@contextmanager
def partial(directory: Path, step: int) -> Iterator[Path]:
    """A directory for the checkpoint of a step, which is renamed if the block ends without error.

    Directories that killed processes have left behind are removed first.
    """
    for left in directory.glob(".step-*"):
        shutil.rmtree(left, ignore_errors=True)
    final = directory / name_of(step)
    place = directory / f".{final.name}.partial"
    place.mkdir()
    try:
        yield place
        _sync(place)
        # A checkpoint of this name can only be one that was rejected when an older one was taken.
        if final.exists():
            remove(final)
        place.rename(final)
        _sync(directory)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def newest(directory: Path) -> Checkpoint | None:
    """The newest whole checkpoint, or None if there are no checkpoints at all.

    Raises:
        CorruptCheckpoint: the directory holds checkpoints, but none of them is whole.
    """
    rejected: list[CorruptCheckpoint] = []
    for path in directories(directory):
        try:
            verify(path)
        except CorruptCheckpoint as error:
            rejected.append(error)
            continue
        for reason in rejected:
            log.warning("checkpoint rejected: %s; going back to %s", reason, path.name)
        return Checkpoint(path)
    if rejected:
        reasons = "; ".join(map(str, rejected))
        raise CorruptCheckpoint(f"no whole checkpoint in {directory}: {reasons}")
    return None


def verify(path: Path) -> None:
    """Compare a checkpoint's files with its manifest.

    Raises:
        CorruptCheckpoint: a file is missing or differs; the message names the checkpoint, the file
            and what is wrong.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        expected = {name: (entry["bytes"], entry["xxh3_128"]) for name, entry in manifest.items()}
    except FileNotFoundError:
        raise CorruptCheckpoint(f"{path} has no {MANIFEST}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CorruptCheckpoint(f"{path / MANIFEST} is not readable as a manifest") from None
    for name in (NETWORKS, OPTIMIZERS, PROGRESS):
        if name not in expected:
            raise CorruptCheckpoint(f"{path / MANIFEST} does not list {name}")
    for name in expected:
        if name not in FILES:  # such a name could be a path to somewhere else
            raise CorruptCheckpoint(f"{path / MANIFEST} lists {name!r}, which no checkpoint has")
        size, digest = expected[name]
        try:
            found = _describe(path / name)
        except FileNotFoundError:
            raise CorruptCheckpoint(f"{path / name} is missing") from None
        if found["bytes"] != size:
            raise CorruptCheckpoint(
                f"{path / name} has {found['bytes']} bytes, its manifest says {size}"
            )
        if found["xxh3_128"] != digest:
            raise CorruptCheckpoint(f"{path / name} does not match the hash in its manifest")


def directories(directory: Path) -> list[Path]:
    """The directories of all checkpoints, damaged ones among them, newest first."""
    if not directory.is_dir():
        return []
    return sorted((p for p in directory.glob("step-*") if p.is_dir()), reverse=True)


def step_of(path: Path) -> int:
    """The step of a checkpoint directory."""
    return int(path.name.removeprefix("step-"))


def remove(path: Path) -> None:
    """Remove a checkpoint. It is renamed first, since half of one would look like a damaged one."""
    doomed = path.with_name(f".{path.name}.removed")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


class HashedFile:
    """A new file that is hashed while it is written and is on the disk when the block ends.

    torch hides the errors of a file behind an error of its own. So the first error is stored, all
    further writing is dropped, and the end of the block raises the stored error.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._hash = xxhash.xxh3_128()
        self._bytes = 0
        self._error: OSError | None = None

    def write(self, data: bytes | bytearray | memoryview) -> int:
        whole = memoryview(data)
        # The pieces are so small that the processor's cache holds them from hashing to writing.
        for start in range(0, len(whole), _PIECE):
            piece = whole[start : start + _PIECE]
            self._hash.update(piece)
            self._bytes += len(piece)
            self._attempt(lambda: self._file.write(piece))  # noqa: B023
        return len(whole)

    def flush(self) -> None:
        self._attempt(self._file.flush)

    def described(self) -> dict[str, Any]:
        """The file's entry in the manifest."""
        return _entry(self._bytes, self._hash)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.flush()
        self._attempt(lambda: os.fsync(self._file.fileno()))
        self._attempt(self._file.close)
        if self._error is not None:
            with suppress(OSError):  # the buffered bytes still do not fit
                self._file.close()
            raise self._error

    def _attempt(self, act: Callable[[], object]) -> None:
        if self._error is None:
            try:
                act()
            except OSError as error:
                self._error = error


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    with HashedFile(path) as file:
        for piece in tensor_files.pieces(tensors):
            file.write(piece)
    return file.described()


def name_of(step: int) -> str:
    """The name of the directory of a step's checkpoint."""
    return f"step-{step:09d}"


def _describe(path: Path) -> dict[str, Any]:
    hasher = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
    return _entry(path.stat().st_size, hasher)


def _entry(size: int, hasher: Any) -> dict[str, Any]:
    return {"bytes": size, "xxh3_128": hasher.hexdigest()}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
