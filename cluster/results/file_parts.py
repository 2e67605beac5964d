"""The rate of each part of files, as `gencomp files` has measured it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cluster.results import file_rates, pictures
from cluster.results.file_rates import FileRates
from cluster.runs import Run, open_run
from gencomp.errors import InputError
from gencomp.evaluation.measured import Measured
from gencomp.figures.file_parts import CONTAINER, FileParts

_USUAL = ("files", "report")  # of `gencomp files`, and of `gencomp report`


def read(paths: Sequence[Path], name: str) -> tuple[list[FileParts], str]:
    """The parts of the files of some runs, and the pictures in words.

    Args:
        paths: the directories of runs, or of measurements by `gencomp files`.
        name: the name of the measurement to take from each run.

    Raises:
        InputError: one has no result, or is of other pictures than the others.
    """
    found = [_read(path, name) for path in paths]
    if unmeasured := [path for path, one in zip(paths, found, strict=True) if one is None]:
        raise file_rates.missing(unmeasured, name)
    known = [one for one in found if one is not None]
    if not known:
        raise InputError("name one run or more, sweeps, or measurements by `gencomp files`")
    first = pictures_of(known[0])
    for other in known[1:]:
        if (own := pictures_of(other)) != first:
            raise InputError(
                f"{known[0].source} and {other.source} are of different pictures ({first} and"
                f" {own}), whose rates do not compare"
            )
    return named(known), first


def of_report(runs: Sequence[Run]) -> list[FileParts]:
    """The parts of the files of some runs under their usual names, as far as they were measured.

    Files of one part, and those of other pictures than the first run's, are left out.
    """
    known = [one for run in runs for one in _measured(run) if one.protocol.get("parts")]
    return named([one for one in known if pictures_of(one) == pictures_of(known[0])])


def named(found: Sequence[FileRates]) -> list[FileParts]:
    """The parts of measured files, each with what tells it from the others."""
    runs = [open_run(one.source.parent.parent.parent) for one in found]
    several = len({run.path for run in runs}) > 1
    of_runs = pictures.differing(runs) if several else [run.path.resolve().name for run in runs]
    names = [
        ", ".join([label, *file_rates.writing(one, found)])
        for label, one in zip(of_runs, found, strict=True)
    ]
    if len(set(names)) < len(names):  # such as seeds, or measurements of several checkpoints
        names = [
            f"{label} ({run.path.resolve().name}, {one.source.parent.name})"
            for label, run, one in zip(names, runs, found, strict=True)
        ]
    return [_parts(one, label) for one, label in zip(found, names, strict=True)]


def pictures_of(found: FileRates) -> str:
    """The pictures of a measurement in words; equal words are equal pictures."""
    protocol = found.protocol
    split, data = protocol["settings"]["split"], protocol["data"][:12]
    seen = [f"{key} {value}" for key, value in protocol["transforms"].items() if value]
    named = f"{protocol['stored']['name']} (index {data}), {split} split, {found.pictures}"
    return ", ".join([named, *seen])


def _read(path: Path, name: str) -> FileRates | None:
    if (path / file_rates.FILE).is_file():
        return file_rates.read(path / file_rates.FILE)
    return file_rates.of_run(open_run(path).path, name)


def _measured(run: Run) -> list[FileRates]:
    """The first complete measurement of a run's files under a usual name; none if there is none."""
    for name in _USUAL:
        try:
            if (found := file_rates.of_run(run.path, name)) is not None:
                return [found]
        except InputError:  # it is not complete yet, or of an older version
            continue
    return []


def _parts(found: FileRates, name: str) -> FileParts:
    code, file = found.metrics["bpp"], found.metrics["file_bpp"]
    # The code of files of one part has no other name; it is that of the latents.
    parts = found.protocol.get("parts") or []
    bpp = {part: float(found.metrics[f"{part}_bpp"]["value"]) for part in parts}
    bpp = bpp or {"latents": float(code["value"])}
    ends = file.get("interval")
    return FileParts(
        name,
        {**bpp, CONTAINER: float(file["value"]) - float(code["value"])},
        Measured(float(file["value"]), None if ends is None else (ends[0], ends[1])),
        int(file["images"]),
    )
