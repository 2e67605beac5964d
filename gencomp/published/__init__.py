"""Published results of other codecs, each with its source and its protocol; without torch.

The tables lie beside this file. `curves.csv` says where a curve comes from and how it was measured,
and `points.csv` has its points; `lossless.csv` and `speed.csv` have one result a line. A blank cell
is what the source does not give. What a source does not say of its protocol is `not stated`, and
never guessed: `rate`, `psnr`, `ms_ssim` and `pixels` are what its text or its public evaluation
code says. Numbers were taken from public repositories at the commits that the tables name.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources

METRICS = ("psnr", "ms_ssim", "ms_ssim_db", "lpips_alex", "dists", "fid", "kid")


@dataclass(frozen=True)
class Source:
    """The place that a number was taken from.

    Attributes:
        repository: the owner and the name of the repository on GitHub.
        commit: the first digits of the commit that was read.
        path: the file in the repository.
    """

    repository: str
    commit: str
    path: str

    def __str__(self) -> str:
        return f"https://github.com/{self.repository}/blob/{self.commit}/{self.path}"


@dataclass(frozen=True)
class Protocol:
    """How a curve was measured, as far as its source says.

    Attributes:
        data_set, split: the images; names that differ are different sets.
        images: the number of images; None where it is not stated.
        images_note: what is known of the images, in words.
        rate: `files` (all bits of real files), `code` (the bits of real code without any
            container), `ideal` (a divergence; no file is written), `none`, or `not stated`.
        psnr: `mean over images` of the PSNR of each, or `not stated`.
        ms_ssim: `mean over images`, `decibels` where the source gives no other value, or `not
            stated`.
        pixels: `8 bits`, `not rounded`, or `not stated`, of the reconstructions.
        colours: `RGB` or `not stated`.
        patches_note: the protocol of FID and KID.
        metrics_note: what else is known of the metrics.
    """

    data_set: str
    split: str
    images: int | None
    images_note: str
    rate: str
    psnr: str
    ms_ssim: str
    pixels: str
    colours: str
    patches_note: str
    metrics_note: str


@dataclass(frozen=True)
class PublishedPoint:
    """A point of a curve.

    Attributes:
        bpp: the rate in bits per pixel, all channels together; None for a ceiling of quality.
        values: the metrics that the source gives, some of `METRICS`.
        note: what the source says of this point alone.
        source: the place that the point was taken from.
    """

    bpp: float | None
    values: dict[str, float]
    note: str
    source: Source


@dataclass(frozen=True)
class PublishedCurve:
    """The points of a method by one protocol, in the order of their rates.

    Attributes:
        method: the method, with its training target in brackets where it has several; `[paper]`
            marks figures that were given out with a paper and not measured again.
        family: `classical`, `learned-mse`, `generative`, `diffusion` or `bound`.
        licence: the licence of the repository.
        note: who measured the curve, and with what settings.
    """

    method: str
    family: str
    protocol: Protocol
    points: tuple[PublishedPoint, ...]
    licence: str
    note: str

    @property
    def source(self) -> Source:
        """The source of the first point; most curves have one file."""
        return self.points[0].source


@dataclass(frozen=True)
class LosslessRate:
    """The rate of a lossless coder on a data set.

    Attributes:
        split: the split of the data set; empty where it is not stated.
        images: the number of images; None where it is not stated.
        as_shipped: whether the images are known to be as the data set ships them.
        bits_per_dimension: the bits per colour value.
        single_image: whether one image alone can be decoded from a file of this rate; not so for
            chains of images, and for bounds.
    """

    method: str
    data_set: str
    split: str
    images: int | None
    as_shipped: bool
    bits_per_dimension: float
    single_image: bool
    source: Source
    note: str


@dataclass(frozen=True)
class CodingTime:
    """The time that a codec takes for an image.

    Attributes:
        resolution: the size of the image, in words.
        encode_ms, decode_ms: milliseconds; None where they are not given.
        parameters: the size of the networks, in words.
    """

    method: str
    device: str
    resolution: str
    encode_ms: float | None
    decode_ms: float | None
    parameters: str
    source: Source
    note: str


@cache
def curves() -> tuple[PublishedCurve, ...]:
    """All curves of rate, distortion and perception."""
    points: dict[str, list[dict[str, str]]] = {}
    for row in _rows("points"):
        points.setdefault(row["curve"], []).append(row)
    return tuple(_curve(row, points[row["curve"]]) for row in _rows("curves"))


@cache
def lossless() -> tuple[LosslessRate, ...]:
    """The rates of lossless coders."""
    return tuple(
        LosslessRate(
            row["method"],
            row["data_set"],
            row["split"],
            int(row["images"]) if row["images"] else None,
            row["as_shipped"] == "yes",
            float(row["bits_per_dimension"]),
            row["single_image"] == "yes",
            _source(row),
            row["note"],
        )
        for row in _rows("lossless")
    )


@cache
def coding_times() -> tuple[CodingTime, ...]:
    """The times of encoding and decoding."""
    return tuple(
        CodingTime(
            row["method"],
            row["device"],
            row["resolution"],
            _number(row["encode_ms"]),
            _number(row["decode_ms"]),
            row["params"],
            _source(row),
            row["note"],
        )
        for row in _rows("speed")
    )


def _rows(name: str) -> Iterator[dict[str, str]]:
    text = resources.files(__package__).joinpath(f"{name}.csv").read_text(encoding="utf-8")
    return csv.DictReader(text.splitlines())


def _curve(row: dict[str, str], points: list[dict[str, str]]) -> PublishedCurve:
    protocol = Protocol(
        data_set=row["data_set"],
        split=row["split"],
        images=int(row["images"]) if row["images"] else None,
        images_note=row["images_note"],
        rate=row["rate"],
        psnr=row["psnr"],
        ms_ssim=row["ms_ssim"],
        pixels=row["pixels"],
        colours=row["colours"],
        patches_note=row["patches_note"],
        metrics_note=row["metrics_note"],
    )
    found = tuple(
        PublishedPoint(
            bpp=_number(point["bpp"]),
            values={name: float(point[name]) for name in METRICS if point[name]},
            note=point["note"],
            source=Source(row["repository"], row["commit"], point["path"] or row["path"]),
        )
        for point in points
    )
    return PublishedCurve(
        row["method"], row["family"], protocol, found, row["licence"], row["note"]
    )


def _source(row: dict[str, str]) -> Source:
    return Source(row["repository"], row["commit"], row["path"])


def _number(text: str) -> float | None:
    return float(text) if text else None
