"""Checkpoints: writing and reading in MB/s against plain torch.save, and what a step loop waits.

A model of 50 million weights (201 MB) and Adam's two moments (403 MB).

- Writing: `cluster.checkpoints.write` (every byte hashed, synchronised with the disk) against
  `torch.save` of the same tensors, with and without a synchronisation of its file.
- Reading: the newest whole checkpoint (every byte hashed and compared) into a model and an
  optimizer, against `torch.load` into the same.
- The pause: seconds that `Saver.save` keeps a loop of real training steps waiting, with and without
  the writing thread.

    python benchmarks/checkpoints.py [--rounds 7] [--layers 12] [--steps 3] [--directory DIR]
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from cluster.checkpoints import store
from cluster.checkpoints.store import Content
from cluster.checkpoints.writer import Saver

WIDTH, BATCH = 2048, 8


@dataclass
class Training:
    """A model whose steps are real, at a size where its checkpoint is large."""

    layers: int
    step: int = 0
    model: nn.Module = field(init=False)
    optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(self.layers)))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-4)
        self.images = torch.randn(BATCH, WIDTH)
        self.advance()

    def advance(self) -> None:
        self.optimizer.zero_grad()
        self.model(self.images).square().mean().backward()
        self.optimizer.step()
        self.step += 1

    def content(self) -> Content:
        return Content(
            networks=self.model.state_dict(),
            optimizers={"phase": self.optimizer.state_dict()},
            progress={"step": self.step, "samples": BATCH * self.step, "world": 1},
        )

    def megabytes(self) -> float:
        return 3 * sum(p.nbytes for p in self.model.parameters()) / 1e6


def seconds(act: Callable[[], object]) -> float:
    begin = time.perf_counter()
    act()
    return time.perf_counter() - begin


def synchronise(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def only_newest(steps: object) -> set[int]:
    return {max(steps)}  # type: ignore[call-overload]


def writing_and_reading(training: Training, directory: Path, rounds: int) -> None:
    ours, plain = directory / "ours", directory / "plain.pt"

    def write_ours() -> None:
        shutil.rmtree(ours, ignore_errors=True)
        store.write(ours, training.content())

    def write_plain() -> None:
        plain.unlink(missing_ok=True)
        content = training.content()
        torch.save({"networks": content.networks, "optimizers": content.optimizers}, plain)

    def write_plain_to_disk() -> None:
        write_plain()
        synchronise(plain)

    other = Training(training.layers)

    def read_ours() -> None:
        found = store.newest(ours)
        assert found is not None
        other.model.load_state_dict(found.networks())
        other.optimizer.load_state_dict(found.optimizers()["phase"])

    def read_plain() -> None:
        found = torch.load(plain, weights_only=True)
        other.model.load_state_dict(found["networks"])
        other.optimizer.load_state_dict(found["optimizers"]["phase"])

    acts = {
        "write, torch.save": write_plain,
        "write, torch.save and fsync": write_plain_to_disk,
        "write, gencomp (hash, fsync)": write_ours,
        "read, torch.load": read_plain,
        "read, gencomp (hash)": read_ours,
    }
    times = measured(acts, rounds)
    size = training.megabytes()
    print(f"\n{size:.0f} MB, {rounds} rounds in turns\n\n| MB/s | median | runs |\n|---|---|---|")
    for name, found in times.items():
        speeds = [size / one for one in found]
        runs = " ".join(f"{speed:.0f}" for speed in speeds)
        print(f"| {name} | {statistics.median(speeds):.0f} | {runs} |")
    write, synced, hashed, read, checked = times.values()
    print(f"| **write against torch.save** (target at least 0.8) | {ratio(write, hashed)} |")
    print(f"| write against torch.save and fsync | {ratio(synced, hashed)} |")
    print(f"| **read against torch.load** (target at least 0.8) | {ratio(read, checked)} |")


def measured(acts: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each act in turns; every other round in reverse order, the first one for none."""
    times: dict[str, list[float]] = {name: [] for name in acts}
    writes, reads = list(acts)[:3], list(acts)[3:]
    for number in range(rounds + 1):
        turn = -1 if number % 2 else 1
        for name in (*writes[::turn], *reads[::turn]):
            taken = seconds(acts[name])
            if number:
                times[name].append(taken)
    return times


def ratio(base: list[float], ours: list[float]) -> str:
    """The ratio of speeds: the median of the pairs, and their range."""
    found = [a / b for a, b in zip(base, ours, strict=True)]
    return f"**{statistics.median(found):.2f}** | {min(found):.2f} to {max(found):.2f}"


def pauses(training: Training, directory: Path, rounds: int, steps: int) -> None:
    """A checkpoint, then some steps, in turns with and without the thread."""
    savers = {
        "in the loop": Saver(directory / "sync", only_newest, background=False),
        "in a thread": Saver(directory / "async", only_newest),
    }
    paused: dict[str, list[float]] = {name: [] for name in savers}
    first = 0.0
    for number in range(rounds + 1):
        step = statistics.median(seconds(training.advance) for _ in range(steps))
        for name, saver in list(savers.items())[:: -1 if number % 2 else 1]:
            pause = seconds(lambda: saver.save(training.content()))  # noqa: B023
            for _ in range(steps):
                training.advance()
            saver.flush()
            if number:
                paused[name].append(pause)
            elif name == "in a thread":
                first = pause
    sync, thread = paused.values()
    shares = [b / a for a, b in zip(sync, thread, strict=True)]
    print(
        f"\na step takes {step:.2f} s; {rounds} checkpoints each in turns, {steps} steps after "
        "each\n\n| the loop stands still | seconds |\n|---|---|\n"
        f"| written in the loop | {spread(sync)} |\n| written in a thread | {spread(thread)} |\n"
        f"| **thread / loop** (target at most 5%) | **{statistics.median(shares):.1%}** "
        f"({min(shares):.1%} to {max(shares):.1%}) |"
    )
    print(f"\nThe first copy, which also gets its memory, took {first:.2f} s.")


def spread(found: list[float]) -> str:
    return f"{statistics.median(found):.3f} ({min(found):.3f} to {max(found):.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    torch.set_num_threads(1)
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"torch {torch.__version__}, Python {platform.python_version()}, load {load}")
    with tempfile.TemporaryDirectory(dir=options.directory, prefix="checkpoints-") as name:
        training = Training(options.layers)
        writing_and_reading(training, Path(name), options.rounds)
        pauses(training, Path(name), options.rounds, options.steps)


if __name__ == "__main__":
    main()
