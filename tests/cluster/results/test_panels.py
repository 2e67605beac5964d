"""Axes of a metric against the rate, from results alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.results import panels
from cluster.results.file_rates import FileRates
from cluster.results.metrics import RunResult, remarks
from gencomp.coding import classical
from gencomp.errors import InputError


def measured(name: str, series: str, bpp: float, draws: int = 3, **values: float) -> RunResult:
    """The content of a metrics.json with these values."""
    metrics: dict[str, Any] = {
        key: {"value": value, "interval": [value - 0.01, value + 0.01]}
        for key, value in values.items()
    }
    content = {
        "metrics": metrics,
        "images": 20,
        "protocol": {
            "weights": "w",
            "data": "0123456789abcdef",
            "stored": {"name": "photos"},
            "settings": {"split": "test", "draws": draws},
            "split_images": 47,
            "rules": {"pixels": "8 bits"},
            "transforms": {},
        },
    }
    rates = {"joint_bpp": {"value": bpp}, "joint_file_bpp": {"value": 2 * bpp}}
    own = {"weights": "w", "data": content["protocol"]["data"], "settings": {"split": "test"}}
    found = FileRates(Path("rates.json"), rates, {**own, "transforms": {}}, "all 47 images")
    return RunResult(name, series, None, content, found)


def test_the_point_without_bits_stands_once_in_a_series() -> None:
    results = [
        measured("a", "λ 1", 0.1, mse=0.2, rate0_mse=0.9),
        measured("b", "λ 1", 0.2, mse=0.1, rate0_mse=0.9),
        measured("c", "λ 2", 0.2, mse=0.3, rate0_mse=0.8),
    ]
    (panel,) = panels.panels(["mse"], results)
    assert [(p.series, p.bpp, p.value) for p in panel.points] == [
        ("λ 1", 0.1, 0.2),
        ("λ 1", 0.2, 0.1),
        ("λ 2", 0.2, 0.3),
        ("λ 1", 0.0, 0.9),
        ("λ 2", 0.0, 0.8),
    ]
    said = "photos, test split, 20 of 47 images, evenly spaced: mse"
    rates = "rates: code in joint containers of all 47 images; a thin line ends at all their bits"
    assert remarks([panel]) == [said, rates, "bars: 95 % intervals over images"]
    # A whole container has more bytes than its code; nothing is sent at 0 bpp.
    assert [p.file_bpp for p in panel.points] == [0.2, 0.4, 0.4, None, None]


@pytest.mark.parametrize(
    ("metric", "word"),
    [
        ("lpips", "lpips"),
        ("mean_psnr", "psnr"),
        ("rfid", "fid"),
        ("rkd", "kid"),
        ("rfid_256", "fid --patches 256"),
    ],
)
def test_a_metric_that_nobody_has_is_named_with_the_mend(metric: str, word: str) -> None:
    said = f"no result has the metric {metric}; measure it with .* --metrics {word}`"
    with pytest.raises(InputError, match=said):
        panels.panels([metric], [measured("a", "", 0.1, mse=0.2)])


@pytest.mark.parametrize("metric", ["rfd", "rfd_64"])
def test_distances_of_another_network_have_an_axis_that_names_it(metric: str) -> None:
    results = [
        measured("a", "λ 1", 0.1, **{metric: 2.0, f"rate0_{metric}": 3.0}),
        measured("b", "λ 1", 0.2, **{metric: 1.0}),
    ]
    for one in results:
        assert one.evaluation is not None
        settings = one.evaluation["protocol"]["settings"]
        settings |= {"features": "fedcba9876543210", "features_input": "uint8"}
    (panel,) = panels.panels(panels.parse(metric), results)
    assert [(p.bpp, p.value) for p in panel.points] == [(0.1, 2.0), (0.2, 1.0), (0.0, 3.0)]
    said = "photos, test split, 20 of 47 images, evenly spaced"
    assert remarks([panel])[0] == f"{said}: {metric} by the feature network fedcba987654"
    assert results[1].evaluation is not None
    results[1].evaluation["protocol"]["settings"]["features"] = "0000000000000000"
    with pytest.raises(InputError, match="feature network is fedcba987654 of the first"):
        panels.panels([metric], results)


@pytest.mark.parametrize("metric", ["mse_256", "rfid_0", "rfid_x"])
def test_only_distances_of_features_have_patches(metric: str) -> None:
    with pytest.raises(InputError, match=f"--metrics '{metric}' is not one of"):
        panels.parse(metric)


def test_other_protocols_do_not_share_an_axis() -> None:
    """Other draws matter to the metric that is an estimate from them, and to no other."""
    results = [
        measured("a", "", 0.1, draws=3, mse=0.2, pv=0.1),
        measured("b", "", 0.2, draws=4, mse=0.1, pv=0.1),
    ]
    assert len(panels.panels(["mse"], results)) == 1
    with pytest.raises(InputError, match="draws of each image is 3 of the first and 4"):
        panels.panels(["pv"], results)


def test_rates_of_other_pictures_do_not_share_an_axis() -> None:
    results = [measured("a", "", 0.1, mse=0.2), measured("b", "", 0.2, mse=0.1)]
    assert results[1].rates is not None
    fewer = replace(results[1].rates, pictures="20 of 47 images, evenly spaced")
    with pytest.raises(InputError, match="of files of all 47 images and of 20 of 47 images"):
        panels.panels(["mse"], [results[0], replace(results[1], rates=fewer)])


def test_a_point_without_bits_needs_no_files() -> None:
    generator = replace(measured("g", "G", 0.1, rate0_mse=0.9), rates=None)
    (panel,) = panels.panels(["mse"], [measured("a", "", 0.1, mse=0.2), generator])
    assert [(p.bpp, p.value) for p in panel.points] == [(0.1, 0.2), (0.0, 0.9)]


def test_reconstructions_of_files_and_of_networks_do_not_share_an_axis() -> None:
    results = [measured("a", "", 0.1, mse=0.2), measured("b", "", 0.2, mse=0.1)]
    assert results[1].evaluation is not None
    results[1].evaluation["protocol"]["settings"]["reconstructions"] = "files"
    with pytest.raises(InputError, match="source of reconstructions is None of the first and fil"):
        panels.panels(["mse"], results)
    assert "reconstructed from files" in remarks(panels.panels(["mse"], results[1:]))[0]


def test_engineered_codecs_need_an_axis_of_distortion_and_the_images() -> None:
    codec = classical.codec("JPEG")
    with pytest.raises(InputError, match="--classical needs one of mse, psnr, mean_psnr, ms_ssim"):
        panels.panels(["pv"], [measured("a", "", 0.1, pv=0.1)], [codec])
    with pytest.raises(InputError, match="its images are not known here"):
        panels.panels(["mse"], [measured("a", "", 0.1, mse=0.1)], [codec])


def test_words_for_metrics() -> None:
    assert panels.parse(" psnr, mse,psnr") == ["psnr", "mse"]
    for text, said in (("ssim", "--metrics 'ssim' is not one of mse, psnr"), (" ,", "is empty")):
        with pytest.raises(InputError, match=said):
            panels.parse(text)
