"""Tables of metrics: units, intervals that are unknown or have no end, and negative distances."""

from __future__ import annotations

import json

from cluster.evaluations.tables import finite, metrics_table


def test_units_intervals_and_counts() -> None:
    metrics = {
        "mse": {"value": 0.25, "interval": [0.0, 0.5], "images": 4},
        "psnr": {"value": 12.04, "interval": [9.03, float("inf")], "images": 4},
        "ms_ssim": {"value": 0.9, "interval": None, "images": 1},
        "bpp": {"value": 0.125, "nominal": True},
    }
    stored = json.loads(json.dumps(finite(metrics), allow_nan=False))
    for content in (metrics, stored):
        table = metrics_table("run", content, {"images": "images"})
        assert table.header == ["metric", "unit", "value", "95 % interval", "of"]
        assert table.rows == [
            ["mse", "pixels on [-1, 1]", "0.25", "0 to 0.5", "4 images"],
            ["psnr", "dB", "12.04", "9.03 to inf", "4 images"],
            ["ms_ssim", "", "0.9", "unknown", "1 images"],
            ["bpp", "bits per pixel", "0.125", "", ""],
        ]
        assert table.remark == ""


def test_the_meaning_of_negative_distances_comes_first() -> None:
    entry = {"value": -0.001, "interval": [-0.004, 0.002]}
    table = metrics_table("run", {"rkid": entry, "mmd": entry, "mse": entry}, {})
    assert table.remark == (
        "KID and MMD: unbiased estimates of a squared distance; a negative one means that no"
        " difference was found"
    )
