"""A source of numbered images that tests can make slow, bad or endless; workers import it."""

from __future__ import annotations

import io
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from shards.building.build import build_source
from shards.building.sources import Outcome, Source
from shards.building.writer import NewSample
from shards.info import Skipped, Transform


@dataclass(frozen=True)
class Numbers:
    """Items that nobody ever lists."""

    count: int

    def __len__(self) -> int:
        return self.count

    def block(self, start: int, stop: int) -> range:
        return range(start, stop)


def numbered(
    counts: dict[str, int],
    *,
    bad: tuple[int, ...] = (),
    keep: int = 1,
    seconds: float = 0.0,
    growth: int = 40,
) -> Source:
    """Item i is noise of 8 + i // growth pixels a side, with two maps, a label and attributes.

    bad: items that cannot be read; keep: of the others only each keep-th is a sample; seconds:
    that each item takes.
    """
    return Source(
        name="numbered",
        parameters={"counts": counts, "keep": keep, "growth": growth},
        transform=Transform(size=None, geometry="none", storage="png"),
        splits={split: Numbers(count) for split, count in counts.items()},
        read=partial(_read, bad=bad, keep=keep, seconds=seconds, growth=growth),
        classes=["even", "odd"],
    )


def driven(seconds: float = 0.0) -> Source:
    """What the command line below builds: 300 items, 20 a shard, by two workers."""
    return numbered({"train": 240, "test": 60}, bad=(77, 201), seconds=seconds)


def _read(
    block: range, bad: tuple[int, ...], keep: int, seconds: float, growth: int
) -> Iterator[Outcome]:
    for i in block:
        if seconds:
            time.sleep(seconds)
        if i in bad:
            yield Skipped(path=f"item {i}", reason=f"item {i} is no number")
        else:
            yield _sample(i, 8 + i // growth) if i % keep == 0 else None


def _sample(i: int, side: int) -> NewSample:
    rng = np.random.default_rng(i)
    members = {
        "png": _png(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)),
        "label.png": _png(rng.integers(0, 9, (side, side), dtype=np.uint8)),
        "instance.png": _png(rng.integers(0, 1 << 16, (side, side), dtype=np.uint16)),
        "cls": str(i % 2).encode(),
        "json": b'{"number": %d}' % i,
    }
    return NewSample(f"n/{i:07d}", members, "png", side, side, i % 2, f"number {i}")


def _png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


if __name__ == "__main__":
    # Whoever was started in the background of a shell ignores Ctrl-C, and so would its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    build_source(
        driven(float(sys.argv[2])),
        Path(sys.argv[1]), shard_size=20, on_error="skip", processes=2,
        progress=lambda *shown: print(*shown, flush=True),
    )  # fmt: skip
