"""Runs by distortion and perception: what they are called, what measures them, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cluster.results import tradeoff
from cluster.runs import Run
from gencomp.errors import InputError
from tests import tiny
from tests.gencomp import vae_cases
from tests.gencomp.systems.urdp.test_training import raw


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An end-to-end run, a decoder and a second layer on it, and fresh critics of the decoders."""
    folder = tmp_path_factory.mktemp("tradeoff")
    blobs = vae_cases.blobs(folder, side=28)
    tiny.trained(folder / "base", raw("end_to_end", blobs))
    for stage in ("universal", "refinement"):
        tiny.trained(folder / stage, raw(stage, blobs, folder / "base"))
    tiny.trained(folder / "critic_of_base", raw("critic", blobs, folder / "base"))
    both = {"parents.decoder": str(folder / "universal"), "parents.encoder": str(folder / "base")}
    tiny.trained(folder / "critic_of_universal", raw("critic", blobs, folder / "base", **both))
    return folder


def paths(runs: Path, *names: str) -> list[Path]:
    return [runs / name for name in names]


def test_stages_rates_and_bases(runs: Path) -> None:
    base, universal, refined = tradeoff.measured(paths(runs, "base", "universal", "refinement"))
    assert base.series == universal.series.replace("universal", "end_to_end")
    assert base.series.startswith("urdp/end_to_end, 0.00606 bpp")
    assert refined.series == "urdp/refinement, 0.0121 bpp"
    assert (base.label, universal.label, refined.label) == ("λ 0.015", "λ 0.005", "λ 0.005")
    assert base.bases == [] and universal.bases == refined.bases == [base.name]
    same = tradeoff.measured(paths(runs, "base", "universal"))
    assert [one.series for one in same] == ["urdp/end_to_end", "urdp/universal"]


def test_every_measure_of_perception_has_an_interval(runs: Path) -> None:
    (base,) = tradeoff.measured(paths(runs, "base"))
    for name in ("mse_unit", "critic_gap", "critic_distance"):
        value, interval = base.values[name]
        assert interval is not None and interval[0] < value < interval[1], name
    result = Run(runs / "base").result()
    assert result is not None and base.images == result["images"]
    assert "fresh_critic_distance" not in base.values and "protocol" not in base.values


def test_a_fresh_critic_measures_its_decoder(runs: Path) -> None:
    """Its metrics are those of the decoder's run, whether that is named or not, in any order."""
    named = ("critic_of_universal", "universal", "base", "critic_of_base")
    found = {one.label: one for one in tradeoff.measured(paths(runs, *named))}
    assert set(found) == {"λ 0.015", "λ 0.005"}
    for label, critic in (("λ 0.015", "critic_of_base"), ("λ 0.005", "critic_of_universal")):
        result = Run(runs / critic).result()
        assert result is not None
        value = found[label].values["fresh_critic_distance"].value
        assert value == result["fresh_critic_distance"]
        assert "critic_distance" in found[label].values
    alone = tradeoff.measured(paths(runs, "critic_of_base", "critic_of_universal"))
    assert [one.series for one in alone] == ["urdp/end_to_end", "urdp/universal"]
    assert [one.label for one in alone] == ["λ 0.015", "λ 0.005"]
    assert "critic_distance" not in alone[0].values
    assert alone[1].bases == [found["λ 0.015"].name]
    points = tradeoff.points(paths(runs, *named), "mse_unit", "fresh_critic_distance")
    assert [point.bases for point in points] == [(points[1].name,), ()]


def test_runs_that_moved_are_still_joined_to_their_bases(runs: Path, tmp_path: Path) -> None:
    for name in ("base", "universal"):
        shutil.copytree(runs / name, tmp_path / name)
    base, universal = tradeoff.measured(paths(tmp_path, "base", "universal"))
    assert universal.bases == [base.name]


def test_runs_on_other_images_are_refused(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "universal", tmp_path / "fewer")
    file = tmp_path / "fewer" / "result.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"images": 7}))
    with pytest.raises(InputError, match="evaluated on different images"):
        tradeoff.measured([runs / "base", tmp_path / "fewer"])
    with pytest.raises(InputError, match="has no swd; it has"):
        tradeoff.points(paths(runs, "base"), "mse_unit", "swd")
