"""Samples per CPU-second of the training stream, beside its own limit and beside webdataset.

    python benchmarks/reader.py [--seconds 2] [--repeats 5] [--out reader.json]

Four readers over the same tars, in turns, several times:

- `stream`: `shards.stream.training_batches`, what training uses (hash check, order, batches);
- `stream, inline`: the same work without the reader thread;
- `pread + decode`: raw `os.pread` at known offsets in random order and our decoder, no more;
- `webdataset`: `webdataset.WebDataset` with a shuffle buffer of 1000 and Pillow's decoder.

CPU time is that of the whole process, threads included. The sets are made on the fly: 64x64 PNG
crops of smooth noise (as large as the crops of `photos`) and 256x256 JPEG.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image

from shards.build import build
from shards.decode import decode
from shards.order import EpochOrder
from shards.reader import ShardSet, Split
from shards.stream import training_batches

BATCH = 64


def make_set(directory: Path, kind: str, samples: int) -> ShardSet:
    """A set of smooth random images: photographs compress about as well."""
    rng = np.random.default_rng(0)
    side = 64 if kind == "png" else 256
    (directory / kind).mkdir()
    for i in range(samples):
        small = Image.fromarray(rng.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8))
        smooth = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC), dtype=np.int16)
        pixels = (smooth + rng.integers(-4, 5, smooth.shape)).clip(0, 255).astype(np.uint8)
        name = directory / kind / f"{i:06d}"
        if kind == "png":
            Image.fromarray(pixels).save(f"{name}.png")
        else:
            Image.fromarray(pixels).save(f"{name}.jpg", quality=90)
    return build("folder", directory / f"{kind}-set", path=directory / kind, test_fraction=0)


def stream(split: Split) -> Iterator[int]:
    order = EpochOrder(split.key_hash, 0, len(split))
    for batch in training_batches(split, order, BATCH, 0, 1, 0):
        yield len(batch.images)


def inline(split: Split) -> Iterator[int]:
    from shards.stream import _read, _shares

    order = EpochOrder(split.key_hash, 0, len(split))
    for rows, positions in _shares(order, BATCH, 0, 1, 0):
        yield len(_read(split, rows, positions).images)


def raw(split: Split) -> Iterator[int]:
    columns = split._columns
    files = [os.open(split.path / name, os.O_RDONLY) for name in columns.shard_names]
    table = list(
        zip(
            (files[s] for s in columns.shard.tolist()),
            columns.member_size.tolist(),
            columns.member_offset.tolist(),
            strict=True,
        )
    )
    try:
        for epoch in count():
            for row in np.random.default_rng(epoch).permutation(len(table)).tolist():
                file, size, offset = table[row]
                decode(os.pread(file, size, offset))
                yield 1
    finally:
        for file in files:
            os.close(file)


def web(split: Split) -> Iterator[int]:
    import webdataset

    urls = [str(p) for p in sorted(split.path.glob("*.tar"))]
    data = webdataset.WebDataset(urls, shardshuffle=100).repeat().shuffle(1000).decode("rgb8")
    for _ in data:
        yield 1


READERS: dict[str, Callable[[Split], Iterator[int]]] = {
    "stream": stream,
    "stream, inline": inline,
    "pread + decode": raw,
    "webdataset": web,
}


def rate(reader: Iterator[int], seconds: float) -> tuple[float, float]:
    """(samples per CPU-second, samples per second) of a fresh reader over `seconds` of CPU time.

    Starting and closing it is part of the time; what it read ahead in vain does not count.
    """
    samples = 0
    cpu, wall = time.process_time(), time.perf_counter()
    while time.process_time() - cpu < seconds:
        for _ in range(BATCH):
            samples += next(reader)
    reader.close()  # type: ignore[attr-defined]
    return samples / (time.process_time() - cpu), samples / (time.perf_counter() - wall)


def measure(shard_set: ShardSet, seconds: float, repeats: int) -> dict[str, dict[str, list[float]]]:
    split = shard_set.split("train")
    for make in READERS.values():
        rate(make(split), 0.2)  # warm: page cache, lazy imports
    rates: dict[str, dict[str, list[float]]] = {n: {"cpu": [], "wall": []} for n in READERS}
    for repeat in range(repeats):
        names = list(READERS) if repeat % 2 == 0 else list(READERS)[::-1]
        for name in names:  # in turns, so that a slow moment of the machine hits all
            cpu, wall = rate(READERS[name](split), seconds)
            rates[name]["cpu"].append(cpu)
            rates[name]["wall"].append(wall)
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="CPU seconds a turn")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--samples", type=int, default=2000, help="images in each set")
    parser.add_argument("--out", type=Path, default=None, help="write a JSON file")
    arguments = parser.parse_args()
    result: dict = {"python": platform.python_version(), "cpus": os.cpu_count(), "batch": BATCH}
    with tempfile.TemporaryDirectory() as directory:
        for kind in ("png", "jpeg"):
            shard_set = make_set(Path(directory), kind, arguments.samples)
            mean = sum(p.stat().st_size for p in shard_set.path.glob("*.tar")) / arguments.samples
            rates = measure(shard_set, arguments.seconds, arguments.repeats)
            result[kind] = {"bytes_a_sample": mean, "rates": rates}
            print(f"\n{kind}: {mean:.0f} bytes a sample; {arguments.repeats} repeats, medians")
            print(
                f"{'reader':<16}{'per CPU-s':>12}{'of pread':>10}{'min':>7}{'max':>7}{'per s':>10}"
            )
            for name, found in rates.items():
                ratios = [
                    a / b for a, b in zip(found["cpu"], rates["pread + decode"]["cpu"], strict=True)
                ]
                print(
                    f"{name:<16}{statistics.median(found['cpu']):>12.0f}"
                    f"{statistics.median(ratios):>10.3f}{min(ratios):>7.2f}{max(ratios):>7.2f}"
                    f"{statistics.median(found['wall']):>10.0f}"
                )
                result[kind].setdefault("ratio_to_pread", {})[name] = statistics.median(ratios)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
