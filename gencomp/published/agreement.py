"""Whether a published curve may stand beside measured points, and if not, in what it differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gencomp.evaluation.feature_inputs import whole_name
from gencomp.published import LosslessRate, PublishedCurve

# The metrics of figures with a published counterpart, and the column that has it.
_COLUMNS = {"mean_psnr": "psnr", "ms_ssim": "ms_ssim"}
_NOT_STATED = "not stated"
_AVERAGED = "mean over images"


class Measured(NamedTuple):
    """What the measured points of an axis were measured on.

    Attributes:
        data_set, split: the names of the data set and of the split.
        images: the number of images, if they are all images of the split; else None.
        untouched: whether the images are as the data set ships them: neither scaled nor cut.
    """

    data_set: str
    split: str
    images: int | None
    untouched: bool


def measured(
    data_set: str, split: str, images: str, geometry: str | None, transforms: Mapping[str, Any]
) -> Measured:
    """What was measured, from the words of protocols.

    Args:
        data_set, split: the names.
        images: the images in words, such as `all 24 images` or `12 of 24 images, evenly spaced`.
        geometry: how the set stores its images, which begins with `none` if they are untouched.
        transforms: the transforms before a measurement; none are made where all values are empty.
    """
    words = images.split()
    whole = len(words) == 3 and words[0] == "all" and words[1].isdecimal()
    untouched = (geometry or "").startswith("none") and not any(transforms.values())
    return Measured(data_set, split, int(words[1]) if whole else None, untouched)


def left_out(why: str, what: str, methods: Sequence[str]) -> str:
    """The sentence about published results that are left out for one reason.

    >>> left_out("at an ideal rate", "curve", ["iREC ideal (mse)"])
    '1 published curve is left out, at an ideal rate: iREC ideal (mse)'
    """
    names = ", ".join(dict.fromkeys(methods))
    which = (
        f"1 published {what} is" if len(methods) == 1 else f"{len(methods)} published {what}s are"
    )
    return f"{which} left out, {why}: {names}"


def difference(curve: PublishedCurve, metric: str, measured: Measured) -> str | None:
    """The first difference that keeps a curve out of an axis; None if there is none.

    Args:
        curve: the published curve, which has the metric's column.
        metric: the metric of the axis.
        measured: what the points of the axis were measured on.
    """
    own = curve.protocol
    if own.data_set != measured.data_set or own.split != measured.split:
        return (
            f"measured on the {own.split} split of {own.data_set}, and not on the {measured.split}"
            f" split of {measured.data_set}"
        )
    if own.images is None:
        return "measured on a number of images that its source does not state"
    if own.images != measured.images:
        return f"measured on {own.images} images, which are not those of this figure"
    if not measured.untouched:
        return "measured on images as the data set ships them; those of this figure were changed"
    return _of_metric(curve, metric) or _of_rate(own.rate)


def lossless_difference(rate: LosslessRate, measured: Measured) -> str | None:
    """The first difference between a rate without loss and measured files; None if there is none.

    Args:
        rate: the rate, of the same data set.
        measured: what the files were measured on.
    """
    if rate.images is None:
        return "of images that the source does not number"
    if (rate.split, rate.images) != (measured.split, measured.images):
        return f"of {rate.images} images of the {rate.split} split, and not of the same"
    if not (rate.as_shipped and measured.untouched):
        return "of images that were cut, scaled or padded otherwise"
    if not rate.single_image:
        return "of a chain of images or a bound, and not of files of one image"
    return None


def column(metric: str) -> str | None:
    """The column of published curves with the values nearest to a metric; None if there is none.

    PSNR of the mean error and distances of features have columns, but never the same protocol.
    """
    whole, _ = whole_name(metric)
    near = {
        "mse": "psnr",
        "psnr": "psnr",
        "rfid": "fid",
        "rkid": "kid",
        "lpips": "lpips_alex",
        "dists": "dists",
    }
    return _COLUMNS.get(metric) or near.get(whole)


def _of_metric(curve: PublishedCurve, metric: str) -> str | None:
    own = curve.protocol
    whole, _ = whole_name(metric)
    if metric not in _COLUMNS:
        if whole in ("mse", "psnr"):
            return (
                "which give no mean error over images, but at most the mean of the PSNR of each"
                " image (--metrics mean_psnr)"
            )
        if whole in ("lpips", "dists"):
            return "of a network that is not known to be the one that was measured here"
        return f"by another protocol ({own.patches_note or 'not stated'})"
    averaged = own.psnr if metric == "mean_psnr" else own.ms_ssim
    if averaged == _NOT_STATED:
        return "averaged over images in a way that the source does not state"
    if averaged != _AVERAGED:
        return "given in decibels, not as the mean of MS-SSIM over images"
    if own.colours != "RGB":
        return "measured in colours that the source does not state"
    if own.pixels == _NOT_STATED and own.rate != "ideal":
        return "of reconstructions of which the source does not state that they have 8 bits"
    if own.pixels == "not rounded" and own.rate != "ideal":
        return "of reconstructions that are not rounded to 8 bits"
    return None


def _of_rate(rate: str) -> str | None:
    if rate == "ideal":
        return "at an ideal rate, for which no file was written"
    if rate not in ("files", "code"):
        return "at a rate of which the source does not state how it was counted"
    return None
