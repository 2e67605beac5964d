"""Published rates without loss beside measured files: of the same pictures, and no others."""

from __future__ import annotations

from typing import Any

from cluster.results.lossless import published_beside
from gencomp.evaluation.measured import Measured
from gencomp.report import Lossless, LosslessFiles
from gencomp.report.lossless_section import lossless

GEOMETRY = "none: files as found, orientation tags not applied"


def protocol(name: str, geometry: str = GEOMETRY, split: str = "test") -> dict[str, Any]:
    return {
        "stored": {"name": name, "geometry": geometry},
        "settings": {"split": split},
        "transforms": {"resize": None, "crop": None},
    }


def test_rates_of_the_same_pictures_stand_in_the_table_with_their_source() -> None:
    fitting, left_out = published_beside(protocol("kodak"), "all 24 images")
    found = {one.name: one.alone for one in fitting}
    assert found["WebP"] == 3.2 and found["iREC"] == 3.67
    assert left_out == [
        "2 published rates are left out, of a chain of images or a bound, and not of files of one"
        " image: HiLLoC, RVAE ELBO (bound)"
    ]
    codec = LosslessFiles("run", "runs/a", None, 3.6, Measured(3.7, None), 3.65, (1.0, 1.0))
    page = lossless(Lossless("kodak", [codec], (), fitting, left_out))
    assert "<td>WebP, published</td>" in page.replace(' class="words"', "")
    assert "https://github.com/gergely-flamich/relative-entropy-coding/blob/" in page
    assert left_out[0] in page


def test_rates_of_other_pictures_are_left_out_with_a_sentence() -> None:
    assert published_beside(protocol("photos"), "all 24 images") == ([], [])
    for changed, pictures, said in (
        (protocol("kodak"), "12 of 24 images, evenly spaced", "not of the same"),
        (protocol("kodak", split="valid"), "all 24 images", "not of the same"),
        (protocol("kodak", geometry="scaled"), "all 24 images", "cut, scaled or padded"),
        (protocol("mnist"), "all 10000 images", "padded otherwise"),
        (protocol("imagenet32"), "all 50000 images", "of 10000 images of the test split"),
    ):
        fitting, left_out = published_beside(changed, pictures)
        assert fitting == [] and any(said in one for one in left_out), left_out
