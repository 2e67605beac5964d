"""JSON of curves: what CompressAI's plots read, back again, and foreign files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.results import curve_files, panels
from cluster.results.metrics import remarks
from gencomp.cli import main
from gencomp.errors import InputError
from gencomp.figures.curves import Panel, Point, require_one_protocol
from sweeps.operating_points import read

PROTOCOL = {"data set": "kodak", "split": "test", "images": "all 24 images"}
FOREIGN = {
    "name": "mbt2018-mse",
    "description": "Inference (ans)",
    "results": {
        "psnr": [28.1, 29.6],
        "ms-ssim": [0.92, 0.94],
        "mse": [0.01, 0.005],  # on a scale that nothing states
        "bpp": [0.11, 0.19],
    },
}


def point(series: str, bpp: float, value: float, metric: str) -> Point:
    protocol = {**PROTOCOL, "metric": metric}
    return Point(series, bpp, value, None, f"{series} {bpp}", protocol, file_bpp=2 * bpp)


def written(path: Path, content: Any) -> Path:
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_series_is_a_file_that_compressai_reads(tmp_path: Path) -> None:
    psnr = [point("λ = 10", 0.2, 31.0, "p"), point("λ = 10", 0.1, 29.0, "p")]
    ssim = [point("λ = 10", 0.1, 0.9, "s"), point("λ = 10", 0.2, 0.95, "s")]
    lpips = [point("λ = 10", 0.1, 0.3, "l")]  # the other point lacks it
    zero = [Point("λ = 10", 0.0, 10.0, None, "z", PROTOCOL)]
    other = [Point("b", 0.3, 20.0, None, "b", PROTOCOL, "published")]
    found = [
        Panel("mean_psnr", [*psnr, *zero, *other]),
        Panel("ms_ssim", ssim),
        Panel("lpips", lpips),
    ]
    path = tmp_path / "json/λ_10.json"
    said = f"wrote {path}, without lpips, which some of its points lack"
    assert curve_files.write(found, path.parent) == [said]
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["name"] == "λ = 10"
    assert content["results"] == {
        "bpp": [0.1, 0.2],
        "file-bpp": [0.2, 0.4],
        "psnr-rgb": [29.0, 31.0],
        "psnr": [29.0, 31.0],
        "ms-ssim-rgb": [0.9, 0.95],
        "ms-ssim": [0.9, 0.95],
    }
    assert content["description"].startswith("kodak, test split, all 24 images; bpp: bits of code")
    # Read again, the points are the same, protocols included.
    again = read([str(path)], "metrics")
    assert [one.series for one in again] == [str(path), str(path)]
    made = [one.point("mean_psnr") for one in again]
    for one, was in zip(made, sorted(psnr, key=lambda p: p.bpp), strict=True):
        assert one is not None
        assert (one.bpp, one.file_bpp, one.value) == (was.bpp, was.file_bpp, was.value)
        assert one.protocol == was.protocol
    with pytest.raises(InputError, match=r"mean_psnr of .* cannot stand in one axis"):
        beside = Point("x", 0.1, 20.0, None, "x", {**PROTOCOL, "split": "valid"})
        require_one_protocol(Panel("mean_psnr", [*filter(None, made), beside]))


def test_a_foreign_file_is_drawn_and_its_protocol_called_unknown(tmp_path: Path) -> None:
    file = written(tmp_path / "mbt.json", FOREIGN)
    results = read([str(file), f"other={file}"], "metrics")
    assert [one.series for one in results] == [str(file), str(file), "other", "other"]
    found = panels.panels(["mean_psnr", "ms_ssim"], results)
    assert [(p.bpp, p.value) for p in found[0].points[:2]] == [(0.11, 28.1), (0.19, 29.6)]
    assert remarks(found)[0] == f"{file}, other: protocol as the file says: unknown"
    # CompressAI's psnr is a mean over images, and so it is no PSNR of the mean error.
    for metric in ("psnr", "mse"):
        with pytest.raises(InputError, match=f"no result has the metric {metric}"):
            panels.panels([metric], results)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not a metrics.json of `gencomp evaluate`, nor JSON with the results of a curve"),
        ("[1]", "is not a metrics.json of"),
        ("[" * 100_000, "is not a metrics.json of"),
        ({"results": {}}, "has no bpp"),
        ({"results": {"bpp": [0.0]}}, "has a bpp that is not above 0"),
        ({"results": {"bpp": [0.1, "x"]}}, "has bpp that is not a list of finite numbers"),
        ({"results": {"bpp": 0.1}}, "has bpp that is not a list of finite numbers"),
        ('{"results": {"bpp": [0.1], "psnr": [NaN]}}', "has psnr that is not a list of finite"),
        ({"results": {"bpp": [0.1], "psnr": [10**400]}}, "has psnr that is not a list of finite"),
        ({"results": {"bpp": [0.1], "psnr": [1, 2]}}, "1 values of bpp, but 2 of psnr"),
        ({"results": {"bpp": [0.1], "ms-ssim": [9.2]}}, "has ms-ssim above 1, perhaps in decib"),
        ({"results": {"bpp": [0.1], "file-bpp": [-1]}}, "has a file-bpp that is not above 0"),
        ({"results": {"bpp": [0.1]}, "protocol": [1]}, "has a protocol that is not an object for"),
        ({"results": {"bpp": [0.1]}, "protocol": {"a": 1}}, "with data set, split, images"),
        ({"results": {"bpp": [0.1]}, "protocol": {"a": {}}}, "with data set, split, images"),
    ],
)
def test_bad_json_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: Any, said: str
) -> None:
    file = written(tmp_path / "bad.json", content)
    words = ["figure", "curves", str(file), "--metrics", "mean_psnr", "--out"]
    assert main([*words, str(tmp_path / "out.png")]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and str(file) in error
    assert not (tmp_path / "out.png").exists()


def test_nothing_is_replaced_without_asking(tmp_path: Path) -> None:
    curve_files.check(tmp_path / "new", overwrite=False)
    (tmp_path / "a.json").write_text("{}", encoding="utf-8")
    curve_files.check(tmp_path, overwrite=True)
    for directory, said in (
        (tmp_path, "holds JSON already; add --overwrite"),
        (tmp_path / "a.json", "is a file, but it must be a directory"),
        (tmp_path / "no/where", "does not exist"),
    ):
        with pytest.raises(InputError, match=said):
            curve_files.check(directory, overwrite=False)


def test_names_that_make_the_same_file_name_make_two_files(tmp_path: Path) -> None:
    points = [point("a/b", 0.1, 1.0, "p"), point("a b", 0.1, 1.0, "p"), point("..", 1, 1, "p")]
    curve_files.write([Panel("mean_psnr", points)], tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["a_b.json", "a_b_.json", "curve.json"]
