"""The figure and the command of what relative entropy coding costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gencomp.cli import main
from gencomp.coding.relative_entropy import Settings
from gencomp.coding.relative_entropy.auxiliary import kl
from gencomp.coding.relative_entropy.overhead import (
    T32,
    T1000,
    Overhead,
    like_a_model,
    log_ratio,
    measure,
    target,
)
from gencomp.errors import InputError
from gencomp.figures.overhead import draw
from gencomp.figures.style import encode


def test_targets_are_those_of_the_specification() -> None:
    assert T32.mean_D[:3] == pytest.approx([0.232090, -0.243858, 1.182181], abs=1e-6)
    assert T32.mean_D @ T32.mean_D == pytest.approx(72.0657, abs=1e-4)
    assert T1000.mean_D[:2] == pytest.approx([0.100719, -0.105826], abs=1e-6)
    assert T1000.mean_D @ T1000.mean_D == pytest.approx(613.713, abs=1e-3)
    assert (kl(*T32), kl(*T1000)) == pytest.approx((60, 350))
    for block in like_a_model(5):
        assert 60 <= kl(*block) <= 150 and 100 <= len(block.mean_D) <= 1000


def test_samples_of_a_target_have_its_log_ratio() -> None:
    """The mean of 2,000 is within 5 standard errors of the relative entropy."""
    generator = np.random.default_rng(0)
    block = target(20, 0.4, 25.0)
    ratios = [
        log_ratio(block.mean_D + block.scale_D * generator.standard_normal(20), block)
        for _ in range(2000)
    ]
    assert np.mean(ratios) == pytest.approx(25, abs=5 * np.std(ratios) / 2000**0.5)


def test_measured_rates_are_those_of_the_settings() -> None:
    found = measure([T32] * 30, Settings(3.0, 0.2, 5), keys=2)
    assert found.index_rate == pytest.approx(20 * np.log(36) / 60)
    assert found.index_rate < found.file_rate < found.index_rate + 8 * np.log(2) / 60
    assert 0.8 < found.reached < 1.0 and 0 < found.reached_error < 0.05
    assert found.variance > 1 and found.projection < 0
    assert found.encode_ms > 0 and found.decode_ms > 0


def made(omega: float, oversampling: float, beams: int) -> Overhead:
    return Overhead(Settings(omega, oversampling, beams), 1 + oversampling, 1, 0.9, 0, 1, 0, 2, 1)


def test_figure() -> None:
    found = [made(3, 0.2, 5), made(3, 0.1, 5), made(5, 0.1, 5)]
    figure = draw({"a": found, "b": found}, "title", ["remark"])
    assert len(figure.axes) == 8
    lines = [line for line in figure.axes[0].lines if not line.get_label().startswith("_")]
    assert [list(line.get_xdata()) for line in lines] == [[1.1, 1.2], [1.1]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["Ω 3, B 5", "Ω 5, B 5"]
    assert figure.axes[4].get_ylabel() == "b"
    again = draw({"a": found, "b": found}, "title", ["remark"])
    assert encode(figure, "png") == encode(again, "png")
    with pytest.raises(InputError, match="too many for one figure"):
        draw({"a": [made(3, 0, beams) for beams in range(7)]}, "title", [])


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "overhead.png"
    grid = ["--omegas", "3", "--oversamplings", "0.2", "--beams", "5", "--blocks", "2"]
    assert main(["figure", "overhead", *grid, "--keys", "1", "--out", str(out)]) == 0
    assert Image.open(out).width > 1000
    printed = capsys.readouterr().out
    assert "D 1,000, 350 nats" in printed and "1.195" in printed
    assert main(["figure", "overhead", *grid, "--out", str(out)]) == 2
    words = ["figure", "overhead", "--omegas", "20", "--out", str(tmp_path / "b.png")]
    assert main(words) == 2
    assert "allowed are 2 to 65536" in capsys.readouterr().err
