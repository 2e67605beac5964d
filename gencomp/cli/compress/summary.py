"""The progress of compressing or decompressing many images, and the summary of their files."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from cluster.compressed_files.processes import Failed
from cluster.compressed_files.work import Content, Done
from gencomp.cli.console import print_conversions, print_table, progress
from gencomp.exit_codes import DONE, FAILED, SPEAKER

_MOST_NAMED = 10  # files that were left out and are named; the others are only counted


def followed(
    verb: str, source: Path, count: int, results: Iterator[Done | Failed]
) -> list[Done | Failed]:
    """The results of all images, which are counted on the terminal as they come."""
    found = []
    with progress(verb, "images") as show:
        show(str(source), 0, count)
        for number, result in enumerate(results, start=1):
            show(str(source), number, count)
            found.append(result)
    return found


def conclude(title: str, results: Sequence[Done | Failed], joint: Content | None = None) -> int:
    """Print the summary of many images; returns the exit code, which is 1 if some failed.

    Args:
        title: The title of the table.
        results: What became of each image.
        joint: The content of the one file of all images; None if each image has its own.
    """
    done = [result for result in results if isinstance(result, Done)]
    failed = [result for result in results if isinstance(result, Failed)]
    files = [one.file for one in done if one.file is not None] if joint is None else [joint]
    if done:
        columns = {
            "images": f"{len(done)}",
            "kept": f"{sum(one.kept for one in done)}",
            "bytes": f"{sum(one.bytes for one in files)}",
            "bpp nominal": _nominal_bpp(files) or "–",
            "bpp of code": _bpp(sum(one.code_bits for one in files), files),
            **{f"of {part}": _bpp(bits, files) for part, bits in _parts(files).items()},
            "bpp of containers": _bpp(sum(one.container_bits for one in files), files),
        }
        print_table(title, list(columns), [list(columns.values())])
        print_conversions(Counter(what for one in done for what in one.conversions), len(done))
    if failed:
        print(f"{SPEAKER}{len(failed)} of {len(results)} images failed:", file=sys.stderr)
        for one in failed:
            print(f"  {one.sentence}", file=sys.stderr)
    return FAILED if failed else DONE


def print_left_out(files: Sequence[Path], ending: str) -> None:
    """Print how many files of a folder were left out, and their names.

    Args:
        files: The files.
        ending: What the names of files that are taken end in, in words.
    """
    if not files:
        return
    named = ", ".join(map(str, files[:_MOST_NAMED]))
    more = f" and {len(files) - _MOST_NAMED} more" if len(files) > _MOST_NAMED else ""
    plural = "s" if len(files) > 1 else ""
    print(f"left out {len(files)} file{plural} without {ending}: {named}{more}")


def sentence(file: Content) -> str:
    """The size of a compressed file in words, with the bits of code and of the container."""
    nominal = _nominal_bpp([file])
    *_, last = file.part_bits
    of = f"{last} " if len(file.part_bits) > 1 else ""
    parts = ", ".join(f"{bits} of {part}" for part, bits in _parts([file]).items())
    return (
        f"{file.bytes} bytes = {file.code_bits} bits of code ({_bpp(file.code_bits, [file])}"
        f" bpp{f': {parts}' if parts else ''}"
        f"{f'; {of}nominal {_bits(file.nominal_bits)} bits, {nominal} bpp' if nominal else ''})"
        f" + {file.container_bits} bits of container"
    )


def _parts(files: Sequence[Content]) -> dict[str, int]:
    """The bits of each part of the code of several files; empty where there is a single part."""
    found: Counter[str] = Counter()
    for one in files:
        found.update(one.part_bits)
    return dict(found) if len(found) > 1 else {}


def _nominal_bpp(files: Sequence[Content]) -> str:
    """The bits per pixel at the method's fixed length; empty for a method without fixed length."""
    nominal = [one.nominal_bits for one in files if one.nominal_bits is not None]
    return _bpp(sum(nominal), files) if len(nominal) == len(files) else ""


def _bits(bits: float | None) -> str:
    """A number of bits as text: all digits of a whole one, and two decimals of another."""
    return f"{bits:.2f}".removesuffix(".00") if bits is not None else ""


def _bpp(bits: float, files: Sequence[Content]) -> str:
    """The bits of several files divided by the number of pixels of their pictures, as text."""
    return f"{bits / sum(one.pixels for one in files):.4g}"
