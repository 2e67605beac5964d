"""`gencomp shards stats`, which counts a shard set and draws a contact sheet."""

from __future__ import annotations

import os
from collections.abc import Mapping
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gencomp.cli.console import progress
from gencomp.cli.shards.showing import Location, megabytes
from gencomp.errors import InputError

if TYPE_CHECKING:
    from shards.checking.stats import SplitStats
    from shards.info import DatasetInfo

Key = TypeVar("Key")
_MOST_LINES = 10


def stats(
    location: Location,
    /,
    json: Path | None = None,
    sheet: Path | None = None,
    sheet_images: int = 32,
    processes: int | None = None,
) -> None:
    """Count a shard set: sizes, mean and variance of each channel, labels, pixels of label maps.

    Args:
        location: The shard set, a directory or a URI.
        json: New JSON file to which all the numbers are written as well.
        sheet: New PNG file to which a contact sheet is written.
        sheet_images: How many images of each split the contact sheet shows, evenly spaced over the
            rows.
        processes: How many processes work at once; by default as many as pay off on this machine.
    """
    from shards.checking.contact_sheet import check_sheet, contact_sheet
    from shards.checking.stats import stats as sum_up
    from shards.reading.reader import open_set

    if sheet is not None:
        check_sheet(sheet, sheet_images)
    if json is not None:
        _check_new(json)
    with progress("reading", "samples") as show:
        info, by_split = sum_up(location, processes, show)
    print(f"{location}: {info.name} from {info.source}; {info.transform.geometry}")
    for name, split in by_split.items():
        _print_split(name, split, info)
    if json is not None:
        _write_json(json, location, info, by_split)
    if sheet is not None:
        contact_sheet(open_set(location), sheet, sheet_images)


def _print_split(name: str, split: SplitStats, info: DatasetInfo) -> None:
    print(f"{name}: {split.samples} samples, {split.pixels} pixels, {megabytes(split.bytes)}")
    sizes = ", ".join(f"{percent} %: {size}" for percent, size in split.image_bytes.items())
    print(f"  image bytes     {sizes}")
    print("  mean R G B      " + "  ".join(f"{value:8.3f}" for value in split.mean))
    print("  variance R G B  " + "  ".join(f"{value:8.1f}" for value in split.variance))
    _print_most("size", [(f"{w}x{h}", f"{n}") for (w, h), n in _common(split.sizes)], split.sizes)
    if set(split.labels) != {-1}:
        labels = [(_class(info, label), f"{n}") for label, n in _common(split.labels)]
        _print_most("label", labels, split.labels)
    for member, pixels in split.maps.items():
        total = sum(pixels.values())
        # The values of a label map are classes; those of other maps are shown as numbers.
        shares = [
            (_class(info, value) if member == "label" else str(value), f"{n / total:.2%}")
            for value, n in _common(pixels)
        ]
        _print_most(f"{member} pixels", shares, pixels)


def _common(counts: Mapping[Key, int]) -> list[tuple[Key, int]]:
    """The most frequent keys with their counts, at most `_MOST_LINES` of them."""
    return sorted(counts.items(), key=lambda item: -item[1])[:_MOST_LINES]


def _print_most(what: str, shown: list[tuple[str, str]], counts: Mapping[Key, int]) -> None:
    for name, count in shown:
        print(f"  {what} {name}: {count}")
    if len(counts) > len(shown):
        print(f"  and {len(counts) - len(shown)} more of {what}")


def _class(info: DatasetInfo, label: int) -> str:
    return info.classes[label] if 0 <= label < len(info.classes) else str(label)


def _check_new(path: Path) -> None:
    if path.exists():
        raise InputError(f"{path} exists: choose another file for --json")
    if not path.parent.is_dir():
        raise InputError(f"there is no directory {path.parent} for --json")


def _write_json(
    path: Path, location: str, info: DatasetInfo, by_split: Mapping[str, SplitStats]
) -> None:
    content = {
        "location": location,
        "name": info.name,
        "source": info.source,
        "index_hash": info.index_hash,
        "transform": info.transform.model_dump(),
        "classes": info.classes,
        "splits": {name: split.as_json() for name, split in by_split.items()},
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(dumps(content, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from None
