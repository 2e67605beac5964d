"""Files without loss: the bits per dimension of codecs, their bound and engineered codecs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.evaluations.files.plan import LOSSLESS
from cluster.results import file_rates
from cluster.results.file_rates import FileRates
from gencomp import published
from gencomp.errors import InputError
from gencomp.evaluation.measured import Measured
from gencomp.published import agreement
from gencomp.report import EngineeredFiles, Lossless, LosslessFiles, PublishedFiles


def read(paths: Sequence[Path]) -> Lossless:
    """What some measurements of lossless files say about the same pictures.

    Args:
        paths: the directories of the measurements by `gencomp files`.

    Raises:
        InputError: one has no result, has lost something, or is of other pictures than the others.
    """
    found = [_read(path) for path in paths]
    first = found[0]
    for other in found[1:]:
        if (a := _pictures(first)) != (b := _pictures(other)):
            raise InputError(
                f"{first.source} and {other.source} are of different pictures ({a} and {b}), whose"
                " files do not compare"
            )
    codecs = [_codec(one, found) for one in found]
    return Lossless(
        _pictures(first),
        codecs,
        _engineered(found),
        *published_beside(first.protocol, first.pictures),
    )


def published_beside(
    protocol: Mapping[str, Any], pictures: str
) -> tuple[list[PublishedFiles], list[str]]:
    """The published rates of the same pictures, and a sentence for those of other ones.

    Args:
        protocol: the protocol of the measured files.
        pictures: the pictures in words, such as `all 24 images`.
    """
    name = protocol["stored"]["name"]
    measured = agreement.measured(
        data_set=name,
        split=protocol["settings"]["split"],
        images=pictures,
        geometry=protocol["stored"].get("geometry"),
        transforms=protocol["transforms"],
    )
    fitting: list[PublishedFiles] = []
    left: dict[str, list[str]] = {}
    for one in published.lossless():
        if one.data_set != name:
            continue
        if why := agreement.lossless_difference(one, measured):
            left.setdefault(why, []).append(one.method)
        else:
            source = str(one.source)
            fitting.append(PublishedFiles(one.method, one.bits_per_dimension, source))
    return fitting, [agreement.left_out(why, "rate", those) for why, those in left.items()]


def _read(path: Path) -> FileRates:
    found = file_rates.read(path / file_rates.FILE)
    if found is None:
        raise InputError(
            f"--lossless {path} has no {file_rates.FILE}: name directories of `gencomp files`, such"
            " as RUN/evaluations/files"
        )
    if "file_bpd" not in found.metrics:
        raise InputError(
            f"--lossless {path} is of files that lose something: only those of lossless codecs have"
            " bits per dimension to compare"
        )
    return found


def _pictures(found: FileRates) -> str:
    protocol = found.protocol
    split, data = protocol["settings"]["split"], protocol["data"][:12]
    return f"{protocol['stored']['name']} (index {data}), {split} split, {found.pictures}"


def _codec(one: FileRates, every: Sequence[FileRates]) -> LosslessFiles:
    directory = one.source.parent
    return LosslessFiles(
        name=", ".join([directory.parent.parent.name, *file_rates.writing(one, every)]),
        directory=str(directory),
        bound=None if (bound := one.metrics.get("ideal_bpd")) is None else _measured(bound),
        code=one.metrics["bpd"]["value"],
        alone=_measured(one.metrics["file_bpd"]),
        joint=one.metrics["joint_file_bpd"]["value"],
        seconds=(
            one.metrics["encode_seconds"]["value"],
            one.metrics["decode_seconds"]["value"],
        ),
    )


def _engineered(found: Sequence[FileRates]) -> list[EngineeredFiles]:
    """The files of engineered codecs, each as the first measurement that has it says."""
    rows = []
    for short, name in LOSSLESS.items():
        for one in found:
            entry = one.metrics.get(f"{short}_bpd")
            archive = one.metrics.get(f"joint_{short}_bpd")
            if entry is not None and archive is not None:
                rows.append(EngineeredFiles(name, _measured(entry), archive["value"]))
                break
    return rows


def _measured(entry: Mapping[str, Any]) -> Measured:
    ends = entry.get("interval")
    return Measured(entry["value"], None if ends is None else (ends[0], ends[1]))
