"""A folder of model files: the operating points of each model, and a model's card as text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gencomp import model_file
from gencomp.errors import InputError
from gencomp.model_file import Description, Result

COLUMNS = (
    "model", "method", "nominal bpp", "bpp of files", "PSNR (dB)", "MS-SSIM", "measured on",
    "licence", "MB",
)  # fmt: skip
# The commands that measure, from the one that says most of a codec's files.
_COMMANDS = ("gencomp files", "gencomp evaluate", "gencomp train")
_UNKNOWN, _LOSSLESS = "–", "lossless"
# The metrics of what files decode to, in the order of the columns.
_QUALITIES = ("psnr", "ms_ssim")


class Found(NamedTuple):
    """A model file of a folder.

    Attributes:
        path: the file.
        description: the description in it; its tensors are not read.
    """

    path: Path
    description: Description


def models(folder: Path) -> tuple[list[Found], list[str]]:
    """The model files of a folder in the order of their names, and a sentence for each bad one.

    Raises:
        InputError: the folder cannot be read, or holds no model files.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is neither a model file nor a folder of model files")
    paths = sorted(path for path in folder.glob(f"*{model_file.SUFFIX}") if path.is_file())
    if not paths:
        raise InputError(f"{folder} holds no model files ({model_file.SUFFIX})")
    found, refused = [], []
    for path in paths:
        try:
            found.append(Found(path, model_file.read_description(path)))
        except InputError as error:
            refused.append(str(error))
    return found, refused


def rows(found: Sequence[Found]) -> list[list[str]]:
    """The rows of a table with `COLUMNS`: one for each operating point of each model."""
    table = []
    for path, description in found:
        points: list[Result | None] = [*_points(description.card.results)]
        exact = is_lossless(description.card.results)
        for point in points or [None]:
            table.append(
                [
                    path.name,
                    description.method,
                    _number(description.card.results, point, "nominal_bpp"),
                    _number((), point, "joint_bpp"),
                    *(_LOSSLESS if exact else _number((), point, one) for one in _QUALITIES),
                    _UNKNOWN if point is None else measured_on(point),
                    description.card.licence or "not stated",
                    f"{path.stat().st_size / 1e6:.3g}",
                ]
            )
    return [[_printable(cell) for cell in row] for row in table]


def card_lines(found: Found) -> list[str]:
    """A model card as lines of text."""
    description, card = found.description, found.description.card
    hashes = ", ".join(f"{name} {one[:12]}" for name, one in card.data.hashes.items())
    lines = [
        f"{card.name}: {description.method}, {card.step} steps, weights {card.weights}",
        f"licence: {card.licence or 'not stated'}",
        f"trained on: {card.data.name}, split {card.data.split} ({hashes})",
        f"fingerprints: writer {description.fingerprints.writer}, reader"
        f" {description.fingerprints.reader}",
        f"written by gencomp {card.gencomp}",
    ]
    for result in card.results:
        lines += ["", f"{result.command} ({result.name}): {measured_on(result)}"]
        for name, metric in result.metrics.items():
            value = _UNKNOWN if metric.value is None else f"{metric.value:.6g}"
            low, high = metric.interval or (None, None)
            ends = "" if low is None or high is None else f"  ({low:.6g} to {high:.6g})"
            lines.append(f"  {name:<28}{value}{ends}")
    lines += ["", "to use it:", *(f"  {one}" for one in card.use(str(found.path)))]
    return [_printable(line) for line in lines]


def is_lossless(results: Sequence[Result]) -> bool:
    """Whether files of a model decode to the very image.

    Training then measures the bits of an ideal lossless code, `bits_per_dim`. Errors beside it are
    those of the means of a likelihood, which no file decodes to.
    """
    return any(result.value("bits_per_dim") is not None for result in results)


def measured_on(result: Result) -> str:
    """The images of a measurement, in words."""
    stored, settings = result.protocol.get("stored"), result.protocol.get("settings")
    name = stored.get("name") if isinstance(stored, dict) else None
    split = settings.get("split") if isinstance(settings, dict) else None
    counts = [one.images for one in result.metrics.values() if one.images]
    images = max(counts) if counts else result.value("images")
    said = [str(one) for one in (name, split) if one]
    return ", ".join([*said, *([f"{images:g} images"] if images else [])]) or _UNKNOWN


def _printable(text: str) -> str:
    """A text of a file as it may be shown: a terminal obeys characters that cannot be printed."""
    return "".join(one if one.isprintable() else "�" for one in text)


def _points(results: Sequence[Result]) -> list[Result]:
    """The results of the command that says most."""
    for command in _COMMANDS:
        if own := [one for one in results if one.command == command]:
            return own
    return []


def _number(others: Sequence[Result], point: Result | None, metric: str) -> str:
    """A metric of an operating point, or else of another result of the model."""
    for result in (*((point,) if point else ()), *others):
        if (value := result.value(metric)) is not None:
            return f"{value:.4g}"
    return _UNKNOWN
