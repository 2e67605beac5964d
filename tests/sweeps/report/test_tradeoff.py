"""`gencomp report` on a chain of sweeps that weigh perception: all runs, axes, tables, images."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

import shards
from cluster.runs import Run
from gencomp.cli import main
from gencomp.system import Picture
from sweeps import parents, plan, sweep_file
from sweeps.results import read_results, table, write_table
from tests import tiny
from tests.gencomp import vae_cases
from tests.gencomp.systems.urdp.test_training import raw
from tests.html_pages import assert_self_contained, pictures_of

WEIGHT = "loss.perception_weight"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encoders, decoders on one of them, a second layer, and a fresh critic of one decoder."""
    root = tmp_path_factory.mktemp("tradeoff")
    blobs = vae_cases.blobs(root, side=28)
    for name, stage in (("encoders", "end_to_end"), ("decoders", "universal")):
        base = tiny.write(raw(stage, blobs, Path("nowhere")), root / f"{stage}.yaml")
        written = {
            "base": str(base),
            "space": {WEIGHT: {"grid": [0.0, 0.01]}},
            "objective": {"minimise": "mse_unit", "against": ["critic_distance"]},
        }
        if stage == "universal":
            point = {"sweep": str(root / "encoders.yaml"), "point": {WEIGHT: 0.01}}
            written["parents"] = {"encoder": point}
        file = root / f"{name}.yaml"
        file.write_text(yaml.safe_dump(written))
        directory = root / "runs" / name
        sweep = parents.resolved(sweep_file.load(file, {}), directory)
        planned = plan.make(sweep, directory)
        plan.write(sweep, planned, directory)
        for one in planned:
            tiny.trained(one.path, one.recipe.model_dump(mode="json"))
        write_table(table(planned, sweep.objective), directory)
    encoder, decoder = trial(root, "encoders", 0.0), trial(root, "decoders", 0.0)
    tiny.trained(root / "runs" / "refined", raw("refinement", blobs, encoder))
    both = {"parents.decoder": str(decoder), "parents.encoder": str(trial(root, "encoders", 0.01))}
    tiny.trained(root / "runs" / "critic", raw("critic", blobs, decoder, **both))
    return root


def trial(root: Path, sweep: str, weight: float) -> Path:
    found = read_results(root / "runs" / sweep)
    row = next(row for row in found.rows if row[WEIGHT] == weight)
    return found.run(row).path


@pytest.fixture
def at_work(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(workplace)
    return workplace


def test_a_chain_is_shown_by_itself(at_work: Path) -> None:
    assert main("report --sweep runs/decoders --out chain.html --images 3".split()) == 0
    html = (at_work / "chain.html").read_text()
    text = assert_self_contained(html).text
    assert "Distortion and perception" in text and "left out" not in text
    assert "Perception is measured in 1 way" in text
    for sweep in ("encoders", "decoders"):
        for weight in (0.0, 0.01):
            path = trial(at_work, sweep, weight)
            assert str(path.relative_to(at_work)) in text
            assert f"urdp/{'end_to_end' if sweep == 'encoders' else 'universal'}" in text
            result = Run(path).result()
            assert result is not None and f"{result['mse_unit']:.4f}" in text
    # What the method does not have is not shown as empty.
    assert "MMD" not in text and "The best codecs" in text and "critic distance" in text
    assert len(re.findall(r"<svg", html)) == 4

    shown = pictures_of(html)
    blobs = shards.open_set(next(at_work.glob("*/index.parquet")).parent).split("test")
    assert len(shown) == 3 * (1 + 4)
    codec = Run(trial(at_work, "encoders", 0.0)).system().codec()
    assert codec is not None
    originals = shown[:3]
    assert any(np.array_equal(originals[0], blobs.image(row)) for row in range(len(blobs)))
    for place in range(3):
        expected = codec.reconstruct(Picture(originals[place], index=place))
        assert np.array_equal(shown[3 + place], expected)


def test_other_runs_are_named(at_work: Path) -> None:
    words = "report --sweep runs/decoders --out all.html --images 1 --tradeoff runs/refined"
    assert main([*words.split(), "runs/critic"]) == 0
    text = assert_self_contained((at_work / "all.html").read_text()).text
    assert "Perception is measured in 2 ways" in text
    assert "urdp/refinement, 0.0121 bpp" in text and "urdp/universal, 0.00606 bpp" in text
    critic = Run(at_work / "runs" / "critic").result()
    assert critic is not None
    value = critic["fresh_critic_distance"]
    assert f"{value:.3g}".replace("-", "−") in text
    # The refinement starts from the encoder of the least weight.
    assert "urdp/end_to_end, λ 0" in text


def test_runs_alone_make_a_page(at_work: Path) -> None:
    paths = [str(trial(at_work, "encoders", weight)) for weight in (0.0, 0.01)]
    assert main(["report", "--tradeoff", *paths, "--out", "alone.html", "--images", "1"]) == 0
    text = assert_self_contained((at_work / "alone.html").read_text()).text
    assert "Distortion and perception" in text and "All trials" not in text


def test_a_generator_of_other_codecs_is_left_out(
    at_work: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A generator that merely lies in the usual place does not stop a page about something else."""
    monkeypatch.chdir(tmp_path)
    stranger = raw("end_to_end", next(at_work.glob("*/index.parquet")).parent)
    tiny.trained(tmp_path / "runs" / "generator", stranger | {"stage": "end_to_end"})
    for sweep in ("encoders", "decoders"):
        words = ["report", "--sweep", str(at_work / "runs" / sweep), "--out", "page.html"]
        assert main([*words, "--images", "1"]) == 0
        assert "Generator" not in (tmp_path / "page.html").read_text()
