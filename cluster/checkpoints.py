"""Checkpoints: directories that are whole or not there.

A checkpoint is written under a temporary name, hashed into `manifest.json` (written last), and
renamed to `step-<number>`. Loading checks sizes and hashes; one that fails is named and the next
older one is taken.

    step-000000200/
        networks.safetensors   every network of the system, parameters and buffers
        averages.safetensors   their moving averages, where the recipe asks for them
        optimizers.pt          one state per phase
        progress.json          step, samples consumed, world size
        manifest.json          size and xxh3_128 of each file above
"""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import xxhash
from torch import Tensor

from gencomp.errors import InputError

log = logging.getLogger(__name__)

NETWORKS = "networks.safetensors"
AVERAGES = "averages.safetensors"
OPTIMIZERS = "optimizers.pt"
PROGRESS = "progress.json"
MANIFEST = "manifest.json"
_CHUNK = 1 << 22


class CorruptCheckpoint(InputError):
    """A checkpoint whose files are not those of its manifest."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint directory that was whole when it was found."""

    path: Path

    @property
    def step(self) -> int:
        return int(self.path.name.removeprefix("step-"))

    def networks(self) -> dict[str, Tensor]:
        """State of all networks, on the CPU."""
        return safetensors.torch.load_file(self.path / NETWORKS)

    def averages(self) -> dict[str, Tensor] | None:
        """Moving averages of the networks, on the CPU; None where there are none."""
        path = self.path / AVERAGES
        return safetensors.torch.load_file(path) if path.exists() else None

    def optimizers(self) -> dict[str, Any]:
        """State of each phase's optimiser, on the CPU."""
        return torch.load(self.path / OPTIMIZERS, map_location="cpu", weights_only=True)

    def progress(self) -> dict[str, int]:
        return json.loads((self.path / PROGRESS).read_text())

    def networks_hash(self) -> str:
        """Hash of the weights file as the manifest states it."""
        return json.loads((self.path / MANIFEST).read_text())[NETWORKS]["xxh3_128"]


def save(
    directory: Path,
    step: int,
    networks: Mapping[str, Tensor],
    optimizers: Mapping[str, Any],
    progress: Mapping[str, int],
    keep: int,
    averages: Mapping[str, Tensor] | None = None,
) -> Checkpoint:
    """Write the checkpoint of a step and drop all but the newest `keep`.

    Raises:
        OSError: disk full or not writable; older checkpoints are untouched and nothing is left
            behind.
    """
    directory.mkdir(parents=True, exist_ok=True)
    final = directory / f"step-{step:09d}"
    partial = directory / f".{final.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        # Serialised in memory first: both libraries hide a full disk behind errors of their own.
        for name, tensors in ((NETWORKS, networks), (AVERAGES, averages)):
            if tensors is not None:
                packed = {key: t.detach().contiguous().cpu() for key, t in tensors.items()}
                (partial / name).write_bytes(safetensors.torch.save(packed))
        states = io.BytesIO()
        torch.save(dict(optimizers), states)
        (partial / OPTIMIZERS).write_bytes(states.getbuffer())
        (partial / PROGRESS).write_text(json.dumps(dict(progress)))
        manifest = {path.name: _describe(path) for path in sorted(partial.iterdir())}
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1))
        for name in (*manifest, MANIFEST, "."):
            _sync(partial / name)
        # A directory of this name can only be one that was rejected on the way back to an older
        # step.
        _remove(final)
        partial.rename(final)
        _sync(directory)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    found = _directories(directory)
    # Newer ones were rejected on the way back to an older step; they must not count among those
    # kept.
    rejected = found[: found.index(final)]
    for path in rejected + found[len(rejected) + keep :]:
        _remove(path)
    return Checkpoint(final)


def newest(directory: Path) -> Checkpoint | None:
    """The newest whole checkpoint, or None when there is none at all.

    Raises:
        CorruptCheckpoint: there are checkpoints, but not one is whole.
    """
    rejected: list[CorruptCheckpoint] = []
    for path in _directories(directory):
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
        CorruptCheckpoint: names the checkpoint, the file and what is wrong.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        expected = {name: (entry["bytes"], entry["xxh3_128"]) for name, entry in manifest.items()}
    except FileNotFoundError:
        raise CorruptCheckpoint(f"{path} has no {MANIFEST}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CorruptCheckpoint(f"{path / MANIFEST} is not readable as a manifest") from None
    for name in (NETWORKS, OPTIMIZERS, PROGRESS):
        if name not in expected:
            raise CorruptCheckpoint(f"{path / MANIFEST} does not list {name}")
    for name in expected:
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


def _directories(directory: Path) -> list[Path]:
    """Checkpoint directories, newest first."""
    if not directory.is_dir():
        return []
    return sorted((p for p in directory.glob("step-*") if p.is_dir()), reverse=True)


def _describe(path: Path) -> dict[str, Any]:
    hasher = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
    return {"bytes": path.stat().st_size, "xxh3_128": hasher.hexdigest()}


def _remove(path: Path) -> None:
    """Rename first: a removal that is cut short must not leave a checkpoint that looks damaged."""
    if path.exists():
        doomed = path.with_name(f".{path.name}.removed")
        shutil.rmtree(doomed, ignore_errors=True)
        path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
