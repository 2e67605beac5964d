"""The published tables: whole, with sources, and beside other results only where they agree."""

from __future__ import annotations

import re

import pytest

from gencomp import published
from gencomp.published import METRICS, PublishedCurve
from gencomp.published.agreement import Measured, difference

KODAK = Measured("kodak", "test", 24, untouched=True)


def curve(method: str, data_set: str = "kodak", repository: str = "") -> PublishedCurve:
    (found,) = (
        one
        for one in published.curves()
        if one.method == method
        and one.protocol.data_set == data_set
        and one.source.repository.endswith(repository)
    )
    return found


def test_every_number_has_a_source_and_a_protocol() -> None:
    assert sum(len(one.points) for one in published.curves()) == 1403
    assert (len(published.lossless()), len(published.coding_times())) == (120, 59)
    sources = {point.source for one in published.curves() for point in one.points}
    sources |= {one.source for one in (*published.lossless(), *published.coding_times())}
    for source in sources:
        assert source.repository.count("/") == 1 and len(source.commit) == 12 and source.path
    for one in published.curves():
        own = one.protocol
        assert own.data_set and own.images_note and one.licence
        assert own.rate in ("files", "code", "ideal", "none", "not stated")
        assert own.psnr in ("mean over images", "not stated")
        assert own.ms_ssim in ("mean over images", "decibels", "not stated")
        assert own.pixels in ("8 bits", "not rounded", "not stated")
        rates = [point.bpp for point in one.points if point.bpp is not None]
        assert rates == sorted(rates) and min(rates, default=0) >= 0
        assert all(set(point.values) <= set(METRICS) for point in one.points)


def test_numbers_are_those_of_their_sources() -> None:
    """AV1 and the two upper bounds are those of the files of CompressAI and RD-sandwich."""
    av1 = curve("AV1")
    first = av1.points[0]
    assert (first.bpp, first.values) == (0.055692, {"psnr": 25.5607, "ms_ssim": 0.846568})
    assert str(av1.source) == (
        "https://github.com/InterDigitalInc/CompressAI/blob/869a9f5d4126/results/image/kodak/av1.json"
    )
    bound = curve("RD upper bound (ResNet-VAE)")
    assert bound.points[0].values == {"psnr": 31.8393, "ms_ssim": 0.962929, "ms_ssim_db": 14.5007}


@pytest.mark.parametrize(
    ("method", "repository", "metric", "measured", "said"),
    [
        ("AV1", "", "mean_psnr", KODAK, None),
        ("MS-ILLM", "NeuralCompression", "ms_ssim", KODAK, None),
        ("AV1", "", "mean_psnr", KODAK._replace(data_set="photos"), "split of photos"),
        ("AV1", "", "mean_psnr", KODAK._replace(split="valid"), "not on the valid split"),
        ("AV1", "", "mean_psnr", KODAK._replace(images=None), "24 images, which are not those"),
        ("AV1", "", "mean_psnr", KODAK._replace(untouched=False), "were changed"),
        ("AV1", "", "psnr", KODAK, "which give no mean error over images"),
        ("AV1", "", "mse", KODAK, "which give no mean error over images"),
        ("MS-ILLM", "DiffEIC", "mean_psnr", KODAK, "the source does not state"),
        ("MS-ILLM", "DiffEIC", "lpips", KODAK, "not known to be the one"),
        ("StableCodec", "", "rfid_256", KODAK, "another protocol \\(FID protocol for Kodak"),
        ("iREC (mse)", "", "mean_psnr", KODAK, "not rounded to 8 bits"),
        ("iREC (mse)", "", "ms_ssim", KODAK, "given in decibels"),
        ("QARV", "", "mean_psnr", KODAK, "not state that they have 8 bits"),
        ("RD upper bound (ResNet-VAE)", "", "mean_psnr", KODAK, "at an ideal rate"),
    ],
)
def test_the_first_difference_is_named(
    method: str, repository: str, metric: str, measured: Measured, said: str | None
) -> None:
    found = difference(curve(method, repository=repository), metric, measured)
    if said is None:
        assert found is None
    else:
        assert found is not None and re.search(said, found)


def test_no_frechet_distance_is_ever_of_the_same_protocol() -> None:
    for one in published.curves():
        own = one.protocol
        measured = Measured(own.data_set, own.split, own.images, untouched=True)
        for metric in ("rfid", "rfid_64", "rfid_256", "rkid_256", "rfd", "lpips", "psnr", "mse"):
            if any(point.values for point in one.points):
                assert difference(one, metric, measured) is not None
