"""`gencomp shards`: build, index, verify and look at shard sets."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from shards.info import DatasetInfo


def build(
    source: Literal["photos", "folder"],
    path: Path | None = None,
    /,
    out: Path | None = None,
    size: int | None = None,
    shard_size: int = 1000,
    test_fraction: float = 0.1,
    seed: int = 0,
    limit: int | None = None,
    on_error: Literal["stop", "skip"] = "stop",
) -> None:
    """Make a shard set: WebDataset tars with a Parquet index.

    A set that was built with the same parameters is left as it is, so this can be repeated.

    Args:
        source: photos: crops of the photographs inside scikit-image; folder: any folder of images.
        path: The folder of images (only for folder); its sub-folders become labels.
        out: Directory to make; by default data/<source>. Nothing is ever overwritten.
        size: Stored height and width in pixels. photos: 64 by default; folder: shorter side
            resized, then centre crop; by default the original bytes are kept.
        shard_size: Samples in a tar.
        test_fraction: Share of the files that becomes the test split, unless the folder has
            sub-folders train and test.
        seed: Seed of that draw.
        limit: At most so many images in each split.
        on_error: skip: leave out files that are no images and list them in dataset.json.
    """
    from shards.build import build as build_set

    with _progress("building") as show:
        made = build_set(
            source,
            out or Path("data") / source,
            path=path,
            size=size,
            shard_size=shard_size,
            test_fraction=test_fraction,
            seed=seed,
            limit=limit,
            on_error=on_error,
            progress=show,
        )
    _print_set(made.path, made.info)
    for skipped in made.info.skipped:
        print(f"skipped {skipped.path}: {skipped.reason}")


def index(directory: Path, /, split: str | None = None) -> None:
    """Index WebDataset tars that are there already; they stay where and as they are.

    Args:
        directory: The directory of the tars; index.parquet and dataset.json are written into it.
        split: The split of all of them; by default the word train, val or test in each file name.
    """
    from shards.index import index_tars

    _print_set(directory, index_tars(directory, split=split))


def verify(directory: Path, /) -> None:
    """Check every byte of a shard set against its index; exit code 1 when something is wrong.

    Args:
        directory: The shard set.
    """
    from shards.verify import verify as check

    with _progress("verifying") as show:
        report = check(directory, lambda done, total: show("samples", done, total))
    for problem in report.problems:
        print(problem)
    extent = f"{report.samples} samples in {report.shards} shards, {_megabytes(report.bytes)}"
    if not report.ok:
        print(f"{directory}: {len(report.problems)} problems; {extent}")
        raise SystemExit(1)
    print(f"{directory}: whole; {extent}")


def stats(directory: Path, /) -> None:
    """Count a shard set: sizes, mean and variance of each channel, labels.

    Args:
        directory: The shard set.
    """
    from shards.stats import stats as sum_up

    with _progress("reading") as show:
        info, by_split = sum_up(directory, show)
    print(f"{directory}: {info.name} from {info.source}; {info.transform.geometry}")
    for name, split in by_split.items():
        print(f"{name}: {split.samples} samples, {split.pixels} pixels, {_megabytes(split.bytes)}")
        print("  mean R G B      " + "  ".join(f"{value:8.3f}" for value in split.mean))
        print("  variance R G B  " + "  ".join(f"{value:8.1f}" for value in split.variance))
        for (width, height), count in _most(split.sizes):
            print(f"  size {width}x{height}: {count}")
        if len(split.sizes) > _MOST_LINES:
            print(f"  and {len(split.sizes) - _MOST_LINES} more sizes")
        if set(split.labels) != {-1}:
            for label, count in split.labels.items():
                known = 0 <= label < len(info.classes)
                print(f"  label {info.classes[label] if known else label}: {count}")


_MOST_LINES = 10


def _most(counts: dict[tuple[int, int], int]) -> list[tuple[tuple[int, int], int]]:
    return sorted(counts.items(), key=lambda item: -item[1])[:_MOST_LINES]


def _print_set(path: Path, info: DatasetInfo) -> None:
    counts = ", ".join(f"{split} {samples}" for split, samples in info.counts.items())
    size = sum(shard.bytes for split in info.splits.values() for shard in split.shards)
    print(f"{path}: {counts} samples, {_megabytes(size)}; index {info.index_hash[:16]}")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


@contextmanager
def _progress(verb: str) -> Iterator[Callable[[str, int, int], None]]:
    """A bar on a terminal, else a line every ten seconds."""
    if not sys.stderr.isatty():
        last = time.monotonic()

        def line(what: str, done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last > 10:
                last = time.monotonic()
                print(f"{verb} {what}: {done} of {total}", file=sys.stderr, flush=True)

        yield line
        return

    from rich.console import Console
    from rich.progress import Progress, TaskID

    with Progress(console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def advance(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(f"{verb} {what}", total=total)
            bar.update(tasks[what], completed=done)

        yield advance
