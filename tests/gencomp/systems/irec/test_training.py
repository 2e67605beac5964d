"""Every stage through the loop: it learns, and resumes with the same bits."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.runs import open_run
from gencomp import recipes
from tests import tiny
from tests.gencomp import irec_cases
from tests.gencomp.irec_cases import NARROW, RECIPES, STAGES

SHORT: dict[str, Any] = {
    "data.batch_size": 8,
    "training.epochs": None,
    "training.steps": 6,
    "training.log_every": 1,
    "training.checkpoint_every": 2,
    "training.sample_every": 5,
    "optimizer.decay_epochs": [0.5],
    "evaluation.every": 5,
    "evaluation.batch_size": 8,
    "evaluation.limit": 12,
}


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return irec_cases.shard_set(tmp_path_factory.mktemp("waves"))


def raw(stage: str, waves: Path, **overrides: Any) -> dict[str, Any]:
    where = {"data.shards": str(waves), "evaluation.transforms": {}}
    return recipes.with_overrides(
        recipes.read(RECIPES[stage]), {**NARROW[stage], **SHORT, **where, **overrides}
    )


@pytest.mark.parametrize("stage", STAGES)
def test_crashed_and_resumed(stage: str, waves: Path, tmp_path: Path) -> None:
    """Weights, averages, optimizers, metrics log and result are those of a straight run."""
    recipe = raw(stage, waves, **{"training.ema_decay": 0.9})
    straight, outcome = tiny.trained(tmp_path / "straight", recipe)
    assert outcome.finished and all(map(math.isfinite, outcome.metrics.values()))
    with pytest.raises(tiny.Crash):
        tiny.trained(tmp_path / "run", recipe, tiny.crash_after(3))
    run, _ = tiny.trained(tmp_path / "run", recipe)
    tiny.assert_identical(tiny.state(run), tiny.state(straight))
    assert tiny.rows(run) == tiny.rows(straight)


LEARNS: dict[str, Any] = {
    "training.steps": 60,
    "training.checkpoint_every": 60,
    "training.sample_every": 60,
    "training.ema_decay": None,
    "optimizer.decay_epochs": [],
    "optimizer.learning_rate": 5e-3,
    "evaluation.every": 59,
}


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_learns(stage: str, waves: Path, tmp_path: Path) -> None:
    """The objective falls, and the finished run has its table of expected divergences."""
    tiny.trained(tmp_path / "run", raw(stage, waves, **LEARNS))
    losses = tiny.losses(tiny.Run(tmp_path / "run"), "model")
    assert len(losses) == 60
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    table = list(open_run(tmp_path / "run").system().expected_kl)  # type: ignore[attr-defined]
    assert all((mean_C > 0).any() for mean_C in table)


def test_one_far_sample_does_not_undo_a_training() -> None:
    """Adam's momentum follows one gradient of 10⁹ for many steps, unless gradients are limited."""

    def moved(most: float | None) -> float:
        """The largest distance of a weight's way after that gradient among alternating ones."""
        system = irec_cases.made("two_level", **{"optimizer.max_gradient_norm": most})
        optimizer, weights = system.optimizer("model"), system.phases["model"].trained_parameters()
        before: list[torch.Tensor] = []
        for step in range(80):
            if step == 40:
                before = [weight.detach().clone() for weight in weights]
            for weight in weights:
                weight.grad = torch.full_like(weight, (-1) ** step * (1e9 if step == 40 else 1))
            optimizer.step()
        ways = [(a.detach() - b).abs().max() for a, b in zip(weights, before, strict=True)]
        return float(max(ways))

    assert moved(None) > 10 * moved(1.0)
