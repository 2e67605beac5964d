"""The figure of what files are made of: bars in a fixed order that add up to the files."""

from __future__ import annotations

import itertools

import pytest

from gencomp.errors import InputError
from gencomp.evaluation.measured import Measured
from gencomp.figures.file_parts import FileParts, draw, parts_of
from gencomp.figures.style import encode
from gencomp.report.parts_section import rate_by_part

ALL = {"labels": 0.03, "mask": 0.01, "latents": 0.05, "container": 0.02}
FILES = [
    FileParts("C = 4, selective", ALL, Measured(0.11, (0.1, 0.12)), 20),
    FileParts("C = 8", {"latents": 0.07, "container": 0.02}, Measured(0.09), 20),
]


def test_bars_add_up_to_the_files() -> None:
    figure = draw(FILES, "title", ["remark"])
    (axes,) = figure.axes
    bars = [[(one.get_x(), one.get_width()) for one in kind] for kind in axes.containers]
    assert [float(begin + width) for begin, width in bars[-1]] == pytest.approx([0.11, 0.09])
    for left, right in itertools.pairwise(bars):
        for (begin, width), (following, _) in zip(left, right, strict=True):
            assert following == pytest.approx(begin + width)
    names = [str(kind.get_label()) for kind in axes.containers]
    assert names == ["latents", "label map", "mask of kept regions", "container"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["C = 4, selective", "C = 8"]
    (interval,) = axes.lines  # the second has none
    assert list(interval.get_xdata()) == [0.1, 0.12] and list(interval.get_ydata()) == [0, 0]
    assert encode(figure, "png") == encode(draw(FILES, "title", ["remark"]), "png")


def test_parts_of_other_methods_keep_their_names_before_the_container() -> None:
    other = FileParts("x", {"container": 1.0, "residual": 2.0}, Measured(3.0), 1)
    assert parts_of([other, FILES[1]]) == {
        "latents": "latents",
        "residual": "residual",
        "container": "container",
    }


def test_too_many_parts_are_refused() -> None:
    many = FileParts("x", {f"part {k}": 1.0 for k in range(9)}, Measured(9.0), 1)
    with pytest.raises(InputError, match="9 parts are too many"):
        draw([many], "title", [])


def test_a_section_of_the_report_has_the_numbers_too() -> None:
    found = rate_by_part(FILES)
    assert "Rate by part" in found and "<svg" in found
    for said in ("label map", "C = 4, selective", "0.05", "0.11", "var(--g1)"):
        assert said in found
