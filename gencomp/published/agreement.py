"""Whether a published curve may stand beside measured points, and if not, in what it differs."""

from __future__ import annotations

from typing import NamedTuple

from gencomp.evaluation.feature_inputs import whole_name
from gencomp.published import PublishedCurve

# The metrics of figures with a published counterpart, and the column that has it.
COLUMNS = {"mean_psnr": "psnr", "ms_ssim": "ms_ssim"}
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


def column(metric: str) -> str | None:
    """The column of published curves with the values nearest to a metric; None if there is none.

    PSNR of the mean error and distances of features have columns, but never the same protocol.
    """
    whole, _ = whole_name(metric)
    near = {"mse": "psnr", "psnr": "psnr", "lpips": "lpips_alex", "rfid": "fid", "rkid": "kid"}
    return COLUMNS.get(metric) or near.get(whole)


def _of_metric(curve: PublishedCurve, metric: str) -> str | None:
    own = curve.protocol
    whole, _ = whole_name(metric)
    if metric not in COLUMNS:
        if whole in ("mse", "psnr"):
            return (
                "which give no mean error over images, but at most the mean of the PSNR of each"
                " image (--metrics mean_psnr)"
            )
        if whole == "lpips":
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
