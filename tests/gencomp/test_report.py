"""The report: what it says, that it needs nothing but itself, and what it refuses."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import numpy as np
import pytest
import torch

from gencomp.rate_distortion.closed_form import linear_gaussian
from gencomp.report import (
    Best,
    Curve,
    CurveFiles,
    Files,
    Generator,
    History,
    PictureRow,
    Report,
    Sweep,
    Trial,
    analysis,
    render,
)
from gencomp.report.content import Line, MeasuredBound, SimulatedGap
from gencomp.report.markup import DASH, number, plus_minus
from gencomp.report.wording import point_label
from tests.html_pages import Page, assert_self_contained, pictures_of

HOSTILE = "<script>alert(\"x\")</script> & $\\frac{a}$ 'quoted'"
_SIDE = 4


def exact_curve(images: int = 6, points: int = 400) -> Curve:
    """The curve of a linear decoder in closed form, with more points than any run would report."""
    generator = torch.Generator().manual_seed(0)
    values = 3 * _SIDE**2
    weight = torch.randn(values, 5, generator=generator, dtype=torch.float64) * 0.3
    x = torch.randn(images, values, generator=generator, dtype=torch.float64) * 0.4
    beta = torch.logspace(-4, 3, points, dtype=torch.float64)
    exact = linear_gaussian(weight, torch.zeros(values), x, beta)
    ess = np.full((images, points), 6.0)
    ess[-1, 3] = 1.25
    return Curve(
        beta_T=beta.numpy(),
        rate_IT=exact.rate_IT.numpy(),
        distortion_IT=exact.distortion_IT.numpy(),
        log_z_IT=exact.log_z_IT.numpy(),
        ess_IT=ess,
        acceptance_IT=np.full((images, points), 0.7),
        chains=8,
        temperatures=1000,
        height=_SIDE,
        width=_SIDE,
        single_chain_gap=0.31,
        gaps=[
            SimulatedGap(0.01, 0.42, 0.08, (0.25, 0.59), 1.3, 16),
            SimulatedGap(10.0, 10.05, 1.7, (6.43, 13.67), 23.4, 16),
        ],
    )


def trial(number: int, **changes: Any) -> Trial:
    metrics = {
        "step": 1200 + number,
        "nominal_bpp": 0.5,
        "mse": 0.0512 + 0.01 * number,
        "mse_standard_error": 0.0021,
        "psnr": 18.93,
        "mmd": 0.0123,
        "images": 256,
    }
    given = Trial(
        id=f"{number:012x}",
        status="finished",
        error=None,
        point={"loss.mmd_weight": 3 * number, "networks.code_channels": 2 + 2 * (number % 2)},
        metrics=metrics,
        score=0.06 + number,
        scores=Line([10, 20, 30], [0.5, 0.2, 0.06 + number]),
    )
    return dataclasses.replace(given, **changes)


def history(name: str = "8 channels, λ 3") -> History:
    steps = [10, 20, 30]
    terms = {"loss": [3.0, 0.9, 0.1], "rmse": [0.6, 0.4, 0.3], "mmd": [0.5, 0.01, -0.004]}
    return History(
        name,
        {term: Line(steps, values) for term, values in terms.items()},
        {"rmse": Line([30], [0.31]), "mmd": Line([30], [0.02])},
    )


def files(code_bpp: float, mse: float) -> Files:
    return Files(90, code_bpp, code_bpp + 0.125, 31.0, mse, (0.9 * mse, 1.1 * mse))


def on_curve(bits: float, mse: float, images: int = 6) -> CurveFiles:
    return CurveFiles(np.full(images, bits), np.full(images, mse), (bits + 3) / _SIDE**2)


@pytest.fixture(scope="module")
def full() -> Report:
    """A report with every part."""
    rng = np.random.default_rng(0)
    curve = exact_curve(points=50)
    pictures = [rng.integers(0, 256, (8, 8, 3), dtype=np.uint8) for _ in range(3)]
    every = [
        trial(0),
        trial(1, status="stopped"),
        trial(2, metrics={"step": 10, "mse": 0.2, "mmd": 0.4, "psnr": 13.0}),
        trial(
            3,
            status="failed",
            error="out of memory",
            metrics={},
            score=math.inf,
            scores=Line([], []),
        ),
        trial(4, status="pending", metrics={}, score=math.inf, scores=Line([], [])),
    ]
    best = [
        Best(every[0], history("2 channels, λ 0"), files(0.31, 0.06), on_curve(4.5, 0.06)),
        Best(every[1], history("4 channels, λ 3"), files(0.62, 0.05), on_curve(9.5, 0.05)),
    ]
    return Report(
        title="dplc on photos",
        date="Written 2025-01-02 03:04 UTC",
        facts=[("Data", "photos (5 257 train)")],
        notes=["The curve is not complete: 5 of 6 images."],
        pixels=_SIDE**2,
        generator=Generator(
            "generator",
            {"mse": 0.0214, "mse_standard_error": 0.0011, "psnr": 22.7, "mmd": 0.01, "images": 256},
            history("generator"),
        ),
        sweep=Sweep(
            "rates",
            "Objective: the least MSE",
            "networks.code_channels",
            {"mmd": 0.05},
            every,
            best,
        ),
        curve=curve,
        pictures=[
            PictureRow("Originals", "24 bpp", pictures),
            PictureRow("2 channels", "0.5 bpp", pictures, ["20.1 dB", "19.2 dB", "18.3 dB"]),
            PictureRow("Samples", "", pictures[:2]),
        ],
        protocol=[("Data", [("index hash", "0123abcd" * 8)])],
    )


@pytest.fixture(scope="module")
def html(full: Report) -> str:
    return render(full)


class TestPage:
    def test_says_the_numbers(self, html: str) -> None:
        text = assert_self_contained(html).text
        for said in (
            "dplc on photos",
            "2025-01-02 03:04 UTC",
            "0.0512 ± 0.0021",
            "18.93",
            "0.0123",
            "out of memory",
            "stopped early",
            "not run",
            "1 200",
            "0123abcd" * 8,
            "5 of 6 images",
            "0.0214 ± 0.0011",
            "0.31 nats",
            "BDMC gap on simulated images",
            "10.1 ± 1.7",
            "6.43 to 13.7",
            "23.4",
            "1.25 of 8",
            "20.1 dB",
            # Measured rates, each by its name, and the nominal one by its own.
            "files of 90 held-out images",
            "nominal bpp",
            "0.310",
            "0.435",
            "hollow: 90 held-out images",
        ):
            assert said in text, said

    def test_a_page_says_what_its_certificates_say(self, full: Report) -> None:
        """A gap is no proof for test images, a bound is; nothing measured is said to be nothing."""
        assert full.curve

        def said(**changes: Any) -> str:
            curve = dataclasses.replace(full.curve, **changes)  # type: ignore[type-var]
            return Page(render(dataclasses.replace(full, curve=curve))).text

        assert "no proof for the test images" in said()
        assert "fall short by less" not in said()
        assert "How much lower was not measured." in said(gaps=[])
        healthy = MeasuredBound(10.0, 0.12, 0.05, -0.03, 0.4, 0, 6, 0.99, 1.0)
        assert "prove for no image that the line misses more than 1 nat" in said(bounds=[healthy])
        wrong = healthy._replace(missed=97.0, at_least=95.9, worst=134.2, flagged=5)
        text = said(bounds=[healthy, wrong])
        assert "The line is too high for 5 of 6 test images" in text
        assert "95.9 nats or more" in text and "134" in text
        assert "(error unknown)" in said(bounds=[healthy._replace(missed_error=None)])

    @pytest.mark.parametrize(
        ("part", "gone"),
        [
            ("generator", "held-out images its own encoder"),
            ("sweep", "All trials"),
            ("curve", "annealed importance sampling"),
            ("pictures", "Originals"),
            ("protocol", "Protocol"),
        ],
    )
    def test_without_a_part(self, full: Report, html: str, part: str, gone: str) -> None:
        empty: Any = () if part in ("pictures", "protocol") else None
        assert gone in Page(html).text
        page = assert_self_contained(render(dataclasses.replace(full, **{part: empty})))
        assert gone not in page.text

    def test_with_one_part_only(self, full: Report) -> None:
        for part in ("generator", "sweep", "curve", "pictures"):
            alone = Report(title="one", date="today", pixels=16, **{part: getattr(full, part)})
            assert "svg" in assert_self_contained(render(alone)).tags or part == "pictures"
        assert_self_contained(render(Report(title="none", date="today")))

    def test_sweep_without_groups_codecs_or_results(self, full: Report) -> None:
        assert full.sweep
        bare = dataclasses.replace(
            full.sweep, group_by=None, best=[Best(full.sweep.trials[0], history())]
        )
        assert_self_contained(render(dataclasses.replace(full, sweep=bare)))
        nothing = dataclasses.replace(bare, trials=full.sweep.trials[3:], best=[])
        assert_self_contained(render(dataclasses.replace(full, sweep=nothing)))

    def test_many_values_share_the_palette(self, full: Report) -> None:
        assert full.sweep
        every = [trial(n, point={"loss.mmd_weight": 0.37 * n}) for n in range(15)]
        many = dataclasses.replace(full.sweep, trials=every, group_by=None)
        assert_self_contained(render(dataclasses.replace(full, sweep=many)))

    def test_same_report_same_page(self, full: Report, html: str) -> None:
        assert render(full) == html

    @pytest.mark.filterwarnings("ignore:constrained_layout not applied")
    def test_escapes_everything(self, full: Report) -> None:
        assert full.sweep and full.generator and full.curve
        bad = dataclasses.replace(
            trial(0),
            id=HOSTILE,
            error=HOSTILE,
            status="failed",
            point={HOSTILE: HOSTILE, "other." + HOSTILE: 3},
        )
        sweep = Sweep(
            HOSTILE,
            HOSTILE,
            HOSTILE,
            {"mmd": 0.0},
            [bad],
            [Best(bad, history(HOSTILE), files(0.5, 0.1))],
        )
        report = Report(
            title=HOSTILE,
            date=HOSTILE,
            facts=[(HOSTILE, HOSTILE)],
            notes=[HOSTILE],
            pixels=16,
            generator=Generator(HOSTILE, full.generator.metrics, history(HOSTILE)),
            sweep=sweep,
            curve=full.curve,
            pictures=[PictureRow(HOSTILE, HOSTILE, full.pictures[0].images[:1], [HOSTILE])],
            protocol=[(HOSTILE, [(HOSTILE, HOSTILE)])],
        )
        page = assert_self_contained(render(report))
        assert page.text.count(HOSTILE) >= 15

    def test_scales_and_negative_mmds_are_explained_before_the_tables(self, html: str) -> None:
        text = re.sub(r"<svg.*?</svg>", "", html, flags=re.DOTALL)
        said = text.index("mse: pixels on [-1, 1]. MMD: unbiased estimates")
        assert "a negative one means" in text[said:]
        assert said < text.index("MMD</th>")

    def test_follows_light_and_dark(self, html: str) -> None:
        """Figures have no colours of their own, so that they are seen on both."""
        assert "prefers-color-scheme: dark" in html
        drawings = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
        assert len(drawings) >= 5
        for drawing in drawings:
            assert not re.search(r"#[0-9a-f]{6}\b", re.sub(r'(href|url\()="?#[^")]*', "", drawing))

    def test_further_figures_are_the_pixels(self) -> None:
        drawn_HWC = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
        page = render(Report(title="one", date="today", figures=[("a<b>.png", drawn_HWC)]))
        assert_self_contained(page)
        (found_HWC,) = pictures_of(page)
        assert np.array_equal(found_HWC, drawn_HWC) and "a&lt;b&gt;.png" in page

    def test_pictures_are_the_pixels(self, full: Report, html: str) -> None:
        shown = pictures_of(html)
        given = [image for row in full.pictures for image in row.images]
        assert len(shown) == len(given)
        assert all(np.array_equal(a, b) for a, b in zip(shown, given, strict=True))


class TestAnalysis:
    def test_a_codec_on_the_curve_has_no_excess(self) -> None:
        curve = exact_curve()
        near = 250
        held = analysis.held_against(
            curve, curve.rate_IT[:, near], curve.distortion_IT[:, near] / curve.values
        )
        assert held is not None and not held.beyond
        assert abs(held.excess) < 1e-9
        assert held.rate_at_mse == pytest.approx(curve.rate_IT[:, near].mean())

    def test_between_points_a_chord(self) -> None:
        curve = exact_curve(points=40)
        fine = exact_curve(points=4000)
        nats = float(curve.rate_IT.mean(0)[[20, 21]].mean())
        coarse_held = analysis.held_against(curve, np.full(6, nats), np.full(6, 0.2))
        fine_held = analysis.held_against(fine, np.full(6, nats), np.full(6, 0.2))
        assert coarse_held and fine_held
        # A convex curve lies below its chords, so the bound stays one.
        assert fine_held.mse_at_rate < coarse_held.mse_at_rate < 1.02 * fine_held.mse_at_rate

    def test_hardness_common_to_curve_and_codec_cancels(self) -> None:
        """The distortion of image i grows by c_i: that is the curve's error, not the excess's."""
        easy = exact_curve()
        same = dataclasses.replace(
            easy,
            rate_IT=np.repeat(easy.rate_IT[:1], 6, 0),
            distortion_IT=np.repeat(easy.distortion_IT[:1], 6, 0),
            log_z_IT=np.repeat(easy.log_z_IT[:1], 6, 0),
        )
        c_I1 = np.linspace(0.0, 3.0, 6)[:, None]
        hard = dataclasses.replace(
            same,
            distortion_IT=same.distortion_IT + c_I1,
            log_z_IT=same.log_z_IT - same.beta_T * c_I1,
        )
        expected = float(analysis.standard_error(c_I1[:, 0])) / hard.values
        np.testing.assert_allclose(analysis.means(hard).mse_error_T, expected, rtol=1e-6)
        mse_I = hard.distortion_IT[:, 200] / hard.values + 0.01
        held = analysis.held_against(hard, hard.rate_IT[:, 200], mse_I)
        assert held is not None
        assert held.excess == pytest.approx(0.01)
        assert held.excess_error < 1e-9

    def test_bits_that_follow_the_image_cancel_as_its_hardness_does(self) -> None:
        """A codec on every image's own tangent is as far from the curve on each of them."""
        curve, near = exact_curve(), 200
        more_I = np.linspace(-1.0, 1.0, 6)
        mse_I = (curve.distortion_IT[:, near] - more_I / curve.beta_T[near]) / curve.values
        held = analysis.held_against(curve, curve.rate_IT[:, near] + more_I, mse_I + 0.01)
        assert held is not None
        assert held.excess == pytest.approx(0.01) and held.excess_error < 1e-9

    def test_columns_carry_the_error_of_the_curve(self) -> None:
        """The codec's column varies over 400 sets of 6 images as its errors say, within 30 %."""
        curve = exact_curve(images=2400)
        nats, near = float(curve.rate_IT[:, 250].mean()), 250
        noise_I = np.random.default_rng(0).normal(0, 0.01, 2400)
        mse_I = curve.distortion_IT[:, near] / curve.values + 0.03 + noise_I
        found = []
        for part_I in np.arange(2400).reshape(400, 6):
            one = dataclasses.replace(
                curve,
                rate_IT=curve.rate_IT[part_I],
                distortion_IT=curve.distortion_IT[part_I],
                log_z_IT=curve.log_z_IT[part_I],
                ess_IT=curve.ess_IT[part_I],
                acceptance_IT=curve.acceptance_IT[part_I],
            )
            held = analysis.held_against(one, np.full(6, nats), mse_I[part_I])
            assert held is not None
            found.append(held)
        for value, error in (
            ("mse_at_rate", "mse_at_rate_error"),
            ("excess", "excess_error"),
            ("behind", "behind_error"),
            ("rate_at_mse", "rate_error"),
        ):
            values = np.array([getattr(held, value) for held in found])
            errors = np.array([getattr(held, error) for held in found])
            assert np.sqrt((errors**2).mean()) == pytest.approx(values.std(), rel=0.3), value

    def test_the_gap_puts_a_codec_further_behind(self) -> None:
        """The distance is the decibels between the curve and the curve lowered by gap / β."""
        curve, near = exact_curve(), 250
        nats = float(curve.rate_IT[:, near].mean())
        gap = SimulatedGap(float(curve.beta_T[near]), 2.0, 0.5, (1.0, 3.0), 4.0, 16)
        one = dataclasses.replace(curve, gaps=[gap])
        held = analysis.held_against(one, np.full(6, nats), np.full(6, 0.2))
        assert held is not None and held.gap == pytest.approx(2.0)
        lower = held.mse_at_rate - 2.0 / curve.beta_T[near] / curve.values
        assert held.behind_by_gap == pytest.approx(10 * math.log10(held.mse_at_rate / lower))
        bare = dataclasses.replace(curve, gaps=[])
        without = analysis.held_against(bare, np.full(6, nats), np.full(6, 0.2))
        assert without is not None and without.behind_by_gap is None

    def test_outside_the_curve(self) -> None:
        curve = exact_curve()
        mse_I = np.linspace(0.1, 0.2, 6)
        beyond = analysis.held_against(curve, np.full(6, 1e4), mse_I)
        assert beyond is not None and beyond.beyond
        assert beyond.mse_at_rate == pytest.approx(curve.distortion_IT[:, -1].mean() / curve.values)
        assert analysis.held_against(curve, np.zeros(6), mse_I) is None

    def test_a_single_image_has_no_error(self) -> None:
        curve = exact_curve(images=1)
        assert np.isnan(analysis.means(curve).mse_error_T).all()
        held = analysis.held_against(curve, curve.rate_IT[:, 200], np.array([0.2]))
        assert held is not None and math.isnan(held.excess_error)
        assert_self_contained(render(Report("one", "today", pixels=16, curve=curve)))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, DASH),
        (math.nan, DASH),
        (math.inf, "∞"),
        (0.0, "0"),
        (0.0312499, "0.03125"),
        (-1.5, "−1.500"),
        (12345.6, "12346"),
        (1.5e-7, "1.500e−07"),
    ],
)
def test_numbers(value: float | None, shown: str) -> None:
    assert number(value) == shown


def test_errors_decide_the_digits() -> None:
    assert plus_minus(0.123456, 0.0123) == '0.123<span class="pm"> ± 0.012</span>'
    assert plus_minus(0.123456, None) == "0.1235"
    assert plus_minus(0.123456, math.nan) == '0.1235<span class="pm"> (error unknown)</span>'


def test_points_in_words() -> None:
    point = {"loss.mmd_weight": 0.5, "networks.code_channels": 8}
    assert point_label(point, "networks.code_channels") == "8 channels, λ 0.5"
    assert point_label({"networks.code_channels": 1}) == "1 channel"
