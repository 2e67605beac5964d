"""Every stage through the loop: interrupted it ends with the same bits, and its losses go down."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gencomp import recipes
from tests import tiny
from tests.gencomp.dplc_cases import ADVERSARIAL, GENERATORS, SIZES

SHORT: dict[str, Any] = {
    "data.batch_size": 8,
    "training.epochs": None,
    "training.steps": 4,
    "training.log_every": 1,
    "training.checkpoint_every": 2,
    "training.sample_every": 3,
    "evaluation.every": 3,
    "evaluation.batch_size": 8,
    "evaluation.limit": 12,
}


def raw(stage: str, photos: Path, **overrides: Any) -> dict[str, Any]:
    """The narrow recipe of a stage, at the least widths and for a few steps."""
    where = {"data.shards": str(photos)}
    return recipes.with_overrides(
        recipes.read(f"dplc_{stage}_photos"), {**SIZES[stage], **SHORT, **where, **overrides}
    )


@pytest.fixture(scope="module")
def generators(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Finished runs of the three methods."""
    folder = tmp_path_factory.mktemp("generators")
    for stage in GENERATORS:
        tiny.trained(folder / stage, raw(stage, photos))
    return {stage: folder / stage for stage in GENERATORS}


@pytest.mark.parametrize(
    ("stage", "overrides", "fresh"),
    [
        ("wae", ADVERSARIAL, 1),
        ("wgan_gp", {}, 5),
        ("wasserstein_pp", {"critic.steps": 3, "networks.bn_mode": "batch"}, 3),
        ("codec", ADVERSARIAL | {"networks.bn_mode": "batch"}, 1),
        ("cae", {}, 1),
        ("gc", {"critic.steps": 2}, 2),
    ],
)
def test_crashed_and_resumed(
    stage: str,
    overrides: dict[str, Any],
    fresh: int,
    photos: Path,
    generators: dict[str, Path],
    tmp_path: Path,
) -> None:
    """Weights, optimizers of every phase, metrics log and result are those of a straight run."""
    if stage == "codec":
        overrides = overrides | {"parents.generator": str(generators["wgan_gp"])}
    recipe = raw(stage, photos, **overrides)
    straight, outcome = tiny.trained(tmp_path / "straight", recipe)
    assert outcome.finished and all(map(math.isfinite, outcome.metrics.values()))
    assert tiny.result(straight)["samples"] == 4 * fresh * 8
    with pytest.raises(tiny.Crash):
        tiny.trained(tmp_path / "run", recipe, tiny.crash_after(3))
    run, _ = tiny.trained(tmp_path / "run", recipe)
    tiny.assert_identical(tiny.state(run), tiny.state(straight))
    assert tiny.rows(run) == tiny.rows(straight)
    assert tiny.result(run) == tiny.result(straight)


@pytest.mark.parametrize("stage", GENERATORS)
def test_a_codec_starts_from_each_generator(
    stage: str, photos: Path, generators: dict[str, Path], tmp_path: Path
) -> None:
    parent = {"parents.generator": str(generators[stage])}
    run, outcome = tiny.trained(tmp_path / "run", raw("codec", photos, **parent))
    ours, theirs = tiny.state(run), tiny.state(tiny.Run(generators[stage]))
    frozen = {key: value for key, value in ours.items() if key.startswith("generator.")}
    tiny.assert_identical(frozen, {key: theirs[key] for key in frozen})
    assert outcome.metrics["nominal_bpp"] == 0.0078125


QUIET = {"training.checkpoint_every": 99, "training.sample_every": 99, "evaluation.every": 99}


def test_a_critic_learns(photos: Path, tmp_path: Path) -> None:
    """Its loss falls against a generator that hardly moves; images keep a slope near 1.

    A flat critic has a penalty of (0 − 1)² = 1.
    """
    rates = {"critic.optimizer.learning_rate": 3e-4, "optimizer.learning_rate": 1e-5}
    sizes = {"networks.width": 4, "training.steps": 8}
    run, _ = tiny.trained(tmp_path / "run", raw("wgan_gp", photos, **QUIET, **rates, **sizes))
    rows = [row for row in tiny.rows(run) if "critic/loss" in row]
    losses, penalties, gaps = (
        [row[f"critic/{name}"] for row in rows] for name in ("loss", "penalty", "gap")
    )
    assert losses[0] > 0 > -2 > np.mean(losses[-3:])
    assert abs(gaps[0]) < 0.5 and min(gaps[-3:]) > 2
    assert max(penalties) < 0.4 and np.mean(penalties[-3:]) < 0.2


@pytest.mark.parametrize("stage", ["wasserstein_pp", "gc"])
def test_an_autoencoder_with_a_critic_learns_to_reconstruct(
    stage: str, photos: Path, tmp_path: Path
) -> None:
    rates = {"optimizer.learning_rate": 1e-2, "critic.steps": 1}
    sizes = {"networks.width": 4, "training.steps": 12}
    run, _ = tiny.trained(tmp_path / "run", raw(stage, photos, **QUIET, **rates, **sizes))
    name = "generator/rmse" if stage == "wasserstein_pp" else "codec/rmse"
    errors = [row[name] for row in tiny.rows(run) if name in row]
    assert np.mean(errors[-4:]) < 0.9 * errors[0]
