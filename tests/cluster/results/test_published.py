"""Published curves as a layer: drawn where they agree, and else named with the difference."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.results import published
from gencomp.errors import InputError
from gencomp.figures.curves import Panel, Point, draw, require_one_protocol

KODAK: dict[str, Any] = {
    "data set": "kodak",
    "split": "test",
    "images": "all 24 images",
    "the geometry of images": "none: files as found, orientation tags not applied",
    "the transforms of images": {"resize": None, "crop": None},
}


def panel(metric: str, **changes: Any) -> Panel:
    protocol = {**KODAK, **changes}
    points = [Point("ours", bpp, 30.0 + bpp, None, "ours", protocol) for bpp in (0.1, 0.2)]
    return Panel(metric, points)


def test_curves_of_the_same_protocol_are_drawn_and_others_named() -> None:
    (found,), said = published.with_published([panel("mean_psnr")], published.parse("vtm,irec,ctc"))
    require_one_protocol(found)
    drawn = {point.series for point in found.points if point.kind == "published"}
    assert drawn == {"VTM, published in CompressAI"}
    assert said == [
        "mean_psnr: 1 published curve is left out, averaged over images in a way that the source"
        " does not state: VTM",
        "mean_psnr: 2 published curves are left out, of reconstructions that are not rounded to 8"
        " bits: iREC (ms-ssim), iREC (mse)",
        "mean_psnr: nothing is published here on kodak of CTC",
    ]
    assert published.remarks([found])[1:] == ["published: InterDigitalInc/CompressAI@869a9f5d4126"]
    assert published.remarks([panel("mean_psnr")]) == []


def test_every_curve_of_kodak_fits_into_one_figure() -> None:
    panels, _ = published.with_published(
        [panel("mean_psnr"), panel("ms_ssim")], published.parse("ALL")
    )
    names = {p.series for one in panels for p in one.points if p.kind == "published"}
    assert len(names) == 16
    figure = draw(panels, "t", [])
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert set(labels) == {"ours", *names}


@pytest.mark.parametrize(
    ("metric", "changes", "said"),
    [
        ("mean_psnr", {"data set": "photos"}, "mean_psnr is of photos, and these are of .*kodak"),
        ("mean_psnr", {"images": "12 of 24 images, evenly spaced"}, "which are not those of this"),
        ("mean_psnr", {"images": "all 23 images"}, "which are not those of this"),
        ("mean_psnr", {"the transforms of images": {"crop": 64}}, "those of this figure were"),
        ("mean_psnr", {"the geometry of images": "scaled"}, "those of this figure were changed"),
        ("mean_psnr", {"images": "all the images"}, "which are not those of this figure"),
        ("psnr", {}, "which give no mean error"),
        ("lpips", {}, "without this metric: AV1"),
        ("pv", {}, "nothing is published here of any of the --metrics"),
    ],
)
def test_a_layer_without_a_curve_is_refused(
    metric: str, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=f"--published has nothing to draw: .*{said}"):
        published.with_published([panel(metric, **changes)], published.parse("av1"))


def test_results_of_unknown_protocol_have_nothing_published_beside_them() -> None:
    unknown = Panel("mean_psnr", [Point("a", 0.1, 30.0, None, "a.json", None)])
    with pytest.raises(InputError, match="has no result whose data set is known"):
        published.with_published([unknown], published.parse("av1"))


def test_words_for_methods() -> None:
    assert published.parse("") == []
    assert published.parse("JPEG, jpeg") == ["JPEG"]
    assert published.parse("irec") == ["iREC (ms-ssim)", "iREC (mse)"]
    with pytest.raises(InputError, match=r"--published 'jpg' is no method .* did you mean jpeg"):
        published.parse("jpg")
