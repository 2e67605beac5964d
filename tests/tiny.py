"""The smallest whole of everything: recipes of width 4, and how tests look at runs."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import yaml
from torch import Tensor

from cluster.checkpoints import store
from cluster.logs import metrics_log
from cluster.run_entry import enter
from cluster.runs import Run
from cluster.training import state as state_of_training
from cluster.training.worker_info import WorkerInfo
from cluster.worker import Host, Outcome, train
from gencomp import recipes
from gencomp.recipes.schema import BaseRecipe
from gencomp.system import System
from gencomp.systems.common import calibration as calibration_module
from gencomp.systems.common import pixels

_SHARED: dict[str, Any] = {
    "system": "dplc",
    "training": {
        "steps": 12,
        "seed": 1,
        "log_every": 1,
        "checkpoint_every": 4,
        "sample_every": 6,
        "keep_checkpoints": 2,
    },
    "evaluation": {"every": 5, "batch_size": 8, "limit": 12},
}


def generator(photos: Path, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """Raw recipe of a generator; overrides by dotted key."""
    raw = copy.deepcopy(_SHARED) | {
        "stage": "wae",
        "data": {"shards": str(photos), "batch_size": 8},
        "networks": {"width": 4, "latent_dim": 8},
        "loss": {"mmd_weight": 10},
    }
    return recipes.with_overrides(raw, overrides or {})


def codec(photos: Path, parent: Path, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """Raw recipe of a codec on a generator's run."""
    raw = copy.deepcopy(_SHARED) | {
        "stage": "codec",
        "parents": {"generator": str(parent)},
        "data": {"shards": str(photos), "batch_size": 8},
        "networks": {"width": 4, "code_channels": 2, "residual_blocks": 1},
        "loss": {"mmd_weight": 10},
    }
    return recipes.with_overrides(raw, overrides or {})


def checked(raw: dict[str, Any]) -> BaseRecipe:
    return recipes.validate(raw)


def write(raw: dict[str, Any], path: Path) -> Path:
    """A raw recipe as a file."""
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    return path


def started(path: Path, raw: dict[str, Any]) -> Run:
    return enter(path, checked(raw))


def trained(
    path: Path, raw: dict[str, Any], host: Host | None = None, calibration: int = 64
) -> tuple[Run, Outcome]:
    """Train in this process; the global switches of torch are put back.

    Args:
        path, raw: of the run.
        host: who may stop or break it.
        calibration: samples behind the last batch statistics (2048 on the command line).
    """
    run = started(path, raw)
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        with mock.patch.object(calibration_module, "CALIBRATION_SAMPLES", calibration):
            return run, train(run, WorkerInfo(), host or Host())
    finally:
        torch.use_deterministic_algorithms(deterministic)


def stop_after(steps: int) -> Host:
    """A host that lets so many steps pass, wherever the run starts."""
    asked = iter(range(steps))
    return Host(should_stop=lambda: next(asked, None) is None)


def crash_after(steps: int) -> Host:
    """A host that breaks the loop after so many steps, without a checkpoint."""
    asked = iter(range(steps))

    def crash() -> bool:
        if next(asked, None) is None:
            raise Crash
        return False

    return Host(should_stop=crash)


class Crash(Exception):
    """Stands for a process that dies."""


@contextmanager
def double_precision() -> Iterator[None]:
    """The loop runs its networks in float64, where rounding can be told from an error."""
    build = state_of_training.build_system

    def double(*arguments: Any) -> System:
        system = build(*arguments)
        system.networks.double()
        return system

    with (
        mock.patch.object(state_of_training, "build_system", double),
        mock.patch.object(pixels, "to_signed", lambda images: images.double() / 127.5 - 1),
    ):
        yield


def state(run: Run, step: int | None = None) -> dict[str, Tensor]:
    """Every tensor of a checkpoint, by default the newest: weights, buffers, optimizers."""
    found = (
        store.newest(run.checkpoints)
        if step is None
        else store.Checkpoint(run.checkpoints / f"step-{step:09d}")
    )
    assert found is not None
    return dict(found.networks()) | _tensors(found.optimizers(), "optimizers")


def assert_identical(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    """The same names, shapes, types and bits."""
    assert a.keys() == b.keys()
    different = [
        name for name in a if a[name].dtype != b[name].dtype or not torch.equal(a[name], b[name])
    ]
    assert not different, f"{len(different)} of {len(a)} tensors differ: {different[:5]}"


def rows(run: Run) -> list[dict[str, Any]]:
    """The metrics log without clocks."""
    hidden = ("attempt", "time", "samples_per_second")
    return [
        {k: v for k, v in row.items() if k not in hidden} for row in metrics_log.read(run.metrics)
    ]


def losses(run: Run, phase: str = "generator") -> list[float]:
    return [row[f"{phase}/loss"] for row in rows(run) if f"{phase}/loss" in row]


def tree(directory: Path) -> dict[str, bytes]:
    """Every file under a directory with its content."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def result(run: Run) -> dict[str, Any]:
    return json.loads((run.path / "result.json").read_text())  # type: ignore[no-any-return]


def flip(path: Path, at: int = -1) -> None:
    """Flip one bit of the byte at a place (the middle by default)."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at < 0 else at] ^= 1
    path.write_bytes(bytes(data))


def _tensors(value: Any, name: str) -> dict[str, Tensor]:
    if isinstance(value, Tensor):
        return {name: value}
    if isinstance(value, dict):
        items: Any = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        return {name: torch.tensor(float(value))} if isinstance(value, int | float) else {}
    return {k: v for key, inner in items for k, v in _tensors(inner, f"{name}.{key}").items()}
