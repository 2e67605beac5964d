"""Curves as JSON, in the format that CompressAI's plots read.

A file holds the curve of one codec: `name`, `description`, and `results` with lists of equal
length, `bpp` among them. `psnr` and `psnr-rgb` are the mean over images of the PSNR of each, which
gencomp calls mean_psnr, and `ms-ssim` and `ms-ssim-rgb` the mean of MS-SSIM. CompressAI has changed
from the first names to the second ones, so both are written. Other metrics have gencomp's own
names, and are read only from files that state their `protocol`, as those from here do: a name such
as mse has other scales elsewhere.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.files import write_text
from cluster.results.metrics import RunResult
from gencomp.errors import InputError
from gencomp.figures.curves import Panel, Point

_KEYS: dict[str, tuple[str, ...]] = {
    "mean_psnr": ("psnr-rgb", "psnr"),
    "ms_ssim": ("ms-ssim-rgb", "ms-ssim"),
    "psnr": ("psnr-of-mean-mse",),
}
_FOREIGN = (*_KEYS["mean_psnr"], *_KEYS["ms_ssim"])
_FILE_BPP = "file-bpp"
_SAID = ("data set", "split", "images")  # what each protocol says


@dataclass(frozen=True)
class FilePoint(RunResult):
    """A point of a file of curves, which has neither a run nor an evaluation.

    Attributes:
        rate: the rate in bits per pixel.
        whole_rate: the rate of whole files; None where the file says nothing of it.
        values: the metrics, by gencomp's names.
        protocols: the protocol of each metric, as far as the file states it.
    """

    rate: float = math.nan
    whole_rate: float | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    protocols: Mapping[str, Any] = field(default_factory=dict)

    def point(self, metric: str, bpp: float | None = None) -> Point | None:
        """A metric as a point; None if the file does not have it."""
        if bpp is not None or metric not in self.values:
            return None
        protocol = self.protocols.get(metric)
        value = self.values[metric]
        whole = self.whole_rate
        return Point(self.series, self.rate, value, None, self.name, protocol, file_bpp=whole)


def is_curve(path: Path) -> bool:
    """Whether a file is JSON of a curve, and not a metrics.json or something else."""
    try:
        return isinstance(_content(path).get("results"), dict)
    except InputError:
        return False


def read(path: Path) -> list[FilePoint]:
    """The points of a file, in a series with the name of its path, since names come twice.

    Raises:
        InputError: the file cannot be read, or its lists are no numbers of one length.
    """
    content = _content(path)
    results, protocols = content["results"], content.get("protocol", {})
    if not isinstance(protocols, dict) or not all(map(_is_protocol, protocols.values())):
        raise InputError(
            f"{path} has a protocol that is not an object for each metric with {', '.join(_SAID)}"
        )
    rates = _numbers(path, results, "bpp")
    if not rates:
        raise InputError(f"{path} has no bpp")
    for key in ("bpp", _FILE_BPP):
        if min(_numbers(path, results, key), default=1.0) <= 0:
            raise InputError(f"{path} has a {key} that is not above 0")
    known = {key: metric for metric, keys in _KEYS.items() for key in keys[::-1]}
    columns: dict[str, list[float]] = {}
    for key, listed in results.items():
        if key != "bpp" and isinstance(listed, list):
            columns[key] = _numbers(path, results, key)
            if len(columns[key]) != len(rates):
                raise InputError(
                    f"{path} has {len(rates)} values of bpp, but {len(columns[key])} of {key}"
                )
    values: dict[str, list[float]] = {}
    for key in sorted(columns, key=lambda key: key.endswith("-rgb")):  # these take precedence
        metric = known.get(key, key)
        if key in _FOREIGN or (metric in protocols and (key in known or key not in _KEYS)):
            values[metric] = columns[key]
    if max(values.get("ms_ssim", [0.0])) > 1:
        raise InputError(
            f"{path} has ms-ssim above 1, perhaps in decibels; it must be MS-SSIM itself"
        )
    whole = columns.get(_FILE_BPP)
    return [
        FilePoint(
            name=str(path),
            series=str(path),
            run=None,
            evaluation=None,
            rate=rate,
            whole_rate=None if whole is None else whole[i],
            values={metric: listed[i] for metric, listed in values.items()},
            protocols=protocols,
        )
        for i, rate in enumerate(rates)
    ]


def write(panels: Sequence[Panel], directory: Path) -> list[str]:
    """Write a file for each series of a figure that was measured; returns what was written.

    Points without any bits are left out, and so are metrics that some points of a series lack.

    Args:
        panels: the panels of the figure.
        directory: the directory of the files, which is made if it is missing.
    """
    directory.mkdir(exist_ok=True)
    series = dict.fromkeys(
        point.series for panel in panels for point in panel.points if point.kind != "published"
    )
    said: dict[Path, str] = {}
    for name in series:
        stem = re.sub(r"[^\w.+-]+", "_", name).strip("_.") or "curve"
        path = directory / f"{stem}.json"
        while path in said:
            path = path.with_name(f"{path.stem}_.json")
        content = _of_series(name, panels)
        write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        drawn = [p.metric for p in panels if any(o.series == name and o.bpp > 0 for o in p.points)]
        lacking = [
            metric
            for metric in drawn
            if not set(_KEYS.get(metric, (metric,))) <= set(content["results"])
        ]
        without = (
            f", without {', '.join(lacking)}, which some of its points lack" if lacking else ""
        )
        said[path] = f"wrote {path}{without}"
    return list(said.values())


def check(directory: Path, overwrite: bool) -> None:
    """Require that files may be written to a directory.

    Raises:
        InputError: it is a file, lies in no directory, or holds JSON that must not be replaced.
    """
    if directory.exists() and not directory.is_dir():
        raise InputError(f"--json {directory} is a file, but it must be a directory")
    if not directory.parent.is_dir():
        raise InputError(f"the directory {directory.parent} does not exist")
    if not overwrite and directory.is_dir() and any(directory.glob("*.json")):
        raise InputError(f"{directory} holds JSON already; add --overwrite to replace it")


def _of_series(name: str, panels: Sequence[Panel]) -> dict[str, Any]:
    by_metric = {
        panel.metric: {
            (point.source, point.bpp): point
            for point in panel.points
            if point.series == name and point.bpp > 0
        }
        for panel in panels
    }
    places = sorted({key for points in by_metric.values() for key in points}, key=lambda k: k[1])
    results: dict[str, list[float]] = {"bpp": [bpp for _, bpp in places]}
    whole = [
        next(points[key].file_bpp for points in by_metric.values() if key in points)
        for key in places
    ]
    if all(bpp is not None for bpp in whole):
        results[_FILE_BPP] = [float(bpp) for bpp in whole if bpp is not None]
    protocols: dict[str, Mapping[str, Any]] = {}
    for metric, points in by_metric.items():
        if points and len(points) == len(places):
            for key in _KEYS.get(metric, (metric,)):
                results[key] = [points[place].value for place in places]
            if (protocol := points[places[0]].protocol) is not None:
                protocols[metric] = protocol
    return {
        "name": name,
        "description": _description(protocols.values()),
        "results": results,
        "protocol": protocols,
    }


def _description(protocols: Iterable[Mapping[str, Any]]) -> str:
    said = {f"{p['data set']}, {p['split']} split, {p['images']}" for p in protocols}
    images = "; ".join(sorted(said)) or "protocol unknown"
    return f"{images}; bpp: bits of code in joint containers; psnr: mean over images"


def _is_protocol(stated: Any) -> bool:
    """Whether a protocol has what figures and other protocols need of it."""
    return (
        isinstance(stated, dict)
        and all(isinstance(stated.get(key), str) for key in _SAID)
        and isinstance(stated.get("the geometry of images"), str | None)
        and isinstance(stated.get("the transforms of images"), dict | None)
    )


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path} is not JSON") from None
    return content if isinstance(content, dict) else {}


def _numbers(path: Path, results: Mapping[str, Any], key: str) -> list[float]:
    listed = results.get(key, [])
    plain = isinstance(listed, list) and all(
        isinstance(one, int | float) and not isinstance(one, bool) for one in listed
    )
    if plain and all(abs(one) < 1e300 for one in listed):  # no NaN either
        return [float(one) for one in listed]
    raise InputError(f"{path} has {key} that is not a list of finite numbers")
