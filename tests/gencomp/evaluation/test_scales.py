"""The scales of metrics in words."""

from __future__ import annotations

from gencomp.evaluation import scales


def test_a_table_says_its_scale_and_what_negative_means() -> None:
    assert scales.remark(["bpp", "psnr"]) == ""
    assert scales.remark(["mse"]) == "mse: pixels on [-1, 1]"
    assert scales.remark(iter(["bpp", "mse", "mmd"])).startswith("mse: pixels on [-1, 1]. MMD: ")
    assert "negative" in scales.negative(["skid"]) and scales.negative(["mse"]) == ""


def test_all_that_is_of_pixels_has_one_scale() -> None:
    of_pixels = {name for name, unit in scales.UNITS.items() if unit == scales.PIXELS}
    assert of_pixels == {"mse", "ideal_mse", "kept_mse", "pv", "rate0_mse", "rate0_pv"}
