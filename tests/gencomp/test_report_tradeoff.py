"""The report's part about distortion and perception: one measure an axis, intervals, images."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from gencomp.coding.symbols import LayerSymbols
from gencomp.evaluation.measured import Measured
from gencomp.report import PictureRow, Report, Tradeoff, TradeoffRun, render
from tests.html_pages import Page, assert_self_contained, pictures_of


def run(name: str, series: str, distortion: float, perception: float, *bases: str) -> TradeoffRun:
    return TradeoffRun(
        series=series,
        label=f"λ {name}",
        name=name,
        bases=bases,
        directory=f"runs/sweep/trials/{name}",
        nominal_bpp=0.00606,
        images=8000,
        values={
            "mse_unit": Measured(distortion, (0.99 * distortion, 1.01 * distortion)),
            "critic_distance": Measured(perception),
        },
        symbols=[LayerSymbols(3, [1.25, 1.5, 0.75])],
    )


@pytest.fixture
def content() -> Tradeoff:
    grey = [np.full((4, 4, 3), value, np.uint8) for value in (90, 110)]
    encoders = [run("0", "ours/first", 0.05, 4.0), run("0.01", "ours/first", 0.07, 1.0)]
    fresh = {"fresh_critic_distance": Measured(1.5, (1.4, 1.6))}
    decoder = run("0.5", "ours/second", 0.06, 2.0, "0.01", "elsewhere")
    decoder = dataclasses.replace(decoder, values={**decoder.values, **fresh})
    return Tradeoff(
        "mse_unit",
        ["critic_distance", "fresh_critic_distance"],
        [*encoders, decoder],
        [PictureRow("Originals", "", grey), PictureRow("ours/first, λ 0", "mse_unit 0.05", grey)],
    )


def page(content: Tradeoff) -> str:
    return render(Report(title="one", date="today", tradeoff=content))


def test_numbers_with_intervals_and_bases(content: Tradeoff) -> None:
    html = page(content)
    text = assert_self_contained(html).text
    for said in (
        "0.05000 (0.04950 to 0.05050)",
        "1.500 (1.400 to 1.600)",
        "Perception is measured in 2 ways, never two in one axis",
        "critic_distance: the Wasserstein-1 distance behind critic_gap",
        "fresh_critic_distance: the Wasserstein-1 distance behind",
        "Distortion is mse_unit (pixels on [0, 1])",
        "3.50 of 4.75 (1.25 + 1.50 + 0.75)",
        "8 000",
        "runs/sweep/trials/0.01",
    ):
        assert said in text, said
    # The decoder starts from a run of the table, and from one that is not there.
    row = next(row for row in re.findall(r"<tr>.*?</tr>", html) if "trials/0.5" in row)
    assert "ours/first, λ 0.01" in row and "elsewhere" not in row
    other = next(row for row in re.findall(r"<tr>.*?</tr>", html) if "trials/0<" in row)
    assert "<td>–</td>" in other  # nobody has trained a fresh critic for it


def test_each_measure_has_an_axis_of_its_own(content: Tradeoff) -> None:
    (drawing,) = re.findall(r"<svg.*?</svg>", page(content), re.DOTALL)
    text = Page(drawing).text
    assert text.count("perception: critic_distance") == 1
    assert text.count("perception: fresh_critic_distance") == 1
    # The panel of the fresh critic has only the run that it has measured.
    assert text.count("λ 0.5") == 2 and text.count("λ 0.01") == 1
    assert not re.search(r"#[0-9a-f]{6}\b", re.sub(r'(href|url\()="?#[^")]*', "", drawing))


def test_images_keep_their_pixels(content: Tradeoff) -> None:
    """A grid that were stretched to its own range would show 90 and 110 as black and white."""
    shown = pictures_of(page(content))
    assert [int(image[0, 0, 0]) for image in shown] == [90, 110, 90, 110]


def test_many_latents_are_told_by_their_ends(content: Tradeoff) -> None:
    many = dataclasses.replace(
        content.runs[0], symbols=[LayerSymbols(8, [1.0] * 9 + [2.9]), LayerSymbols(4, [2.0])]
    )
    text = Page(page(dataclasses.replace(content, runs=[many]))).text
    assert "11.90 of 30.00 (10 latents of 1.00 to 2.90)" in text
    assert "2.00 of 2.00 (2.00)" in text


def test_hostile_names_are_escaped(content: Tradeoff) -> None:
    bad = "<script>alert(1)</script> $\\frac{a}$"
    runs = [dataclasses.replace(one, series=bad, label=bad, directory=bad) for one in content.runs]
    changed = dataclasses.replace(content, runs=runs)
    assert bad in assert_self_contained(page(changed)).text


def test_without_runs_there_is_no_section() -> None:
    text = Page(page(Tradeoff("mse_unit", ["critic_distance"], []))).text
    assert "Distortion and perception" not in text
