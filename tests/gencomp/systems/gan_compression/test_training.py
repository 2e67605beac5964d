"""Both stages through the loop: they learn, and resume with the same bits."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.runs import open_run
from gencomp import recipes
from gencomp.evaluation.networks import to_file
from tests import tiny
from tests.gencomp import gan_cases
from tests.gencomp.gan_cases import RECIPES

SHORT: dict[str, Any] = {
    "data.batch_size": 2,
    "data.transforms": {"crop": [64, 64], "flip": True},
    "training.steps": 6,
    "training.log_every": 1,
    "training.checkpoint_every": 2,
    "training.sample_every": 5,
    "evaluation.every": 5,
    "evaluation.split": "val",
    "evaluation.transforms": {},
    "evaluation.limit": 4,
}
LABELLED = {"labels.instances": "instance", "data.maps": ["label", "instance"]}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "distortion": ("distortion", {"code.centres": "learnt", "loss.rate.weight": 0.01}),
    "conditional": ("conditional", LABELLED | {"loss.gan": "wgan_gp", "discriminator.updates": 2}),
    "selective": (
        "selective",
        LABELLED | {"discriminator.norm": "none", "discriminator.spectral_norm": True},
    ),
}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gan_cases.shard_set(tmp_path_factory.mktemp("shapes"))


def raw(case: str, shapes: Path, **more: Any) -> dict[str, Any]:
    overrides = {**gan_cases.overrides(case), **SHORT, "data.shards": str(shapes), **more}
    return recipes.with_overrides(recipes.read(RECIPES[case]), overrides)


@pytest.mark.parametrize("name", CASES)
def test_crashed_and_resumed(name: str, shapes: Path, tmp_path: Path) -> None:
    """Weights, averages, optimizers, vectors of spectral norms, log and result are the same."""
    case, overrides = CASES[name]
    recipe = raw(case, shapes, **overrides)
    straight, outcome = tiny.trained(tmp_path / "straight", recipe)
    assert outcome.finished and all(map(math.isfinite, outcome.metrics.values()))
    with pytest.raises(tiny.Crash):
        tiny.trained(tmp_path / "run", recipe, tiny.crash_after(3))
    run, _ = tiny.trained(tmp_path / "run", recipe)
    tiny.assert_identical(tiny.state(run), tiny.state(straight))
    assert tiny.rows(run) == tiny.rows(straight)


def test_two_stages(shapes: Path, tmp_path: Path) -> None:
    """The error falls in the first one; the second one starts from it, and its log shows what a
    dead encoder would."""
    sizes = {"networks.width": 4, "optimizer.learning_rate": 2e-3}
    every = ("training.steps", "training.checkpoint_every", "training.sample_every")
    longer = dict.fromkeys((*every, "evaluation.every"), 60)
    first, _ = tiny.trained(tmp_path / "first", raw("distortion", shapes, **sizes, **longer))
    errors = [row["codec/mse"] for row in tiny.rows(first) if "codec/mse" in row]
    assert len(errors) == 60 and sum(errors[-5:]) < 0.6 * sum(errors[:5])
    labelled = {"data.maps": ["label"], "parents.distortion": str(first.path)}
    second, _ = tiny.trained(tmp_path / "second", raw("global_plus", shapes, **sizes, **labelled))
    rows = [row for row in tiny.rows(second) if "codec/mse" in row]
    assert len(rows) == 6 and rows[0]["codec/mse"] < 0.7 * errors[0]
    for row in rows:
        for name in ("encoder", "decoder"):
            assert row[f"codec/gradient_norm_{name}"] > 0
        assert row["discriminator/gradient_norm_discriminator"] > 0
        for channel in range(8):
            shares = [row[f"codec/share_{channel}_{level}"] for level in range(5)]
            assert sum(shares) == pytest.approx(1)
    found = tiny.result(second)
    assert found["nominal_bpp"] >= found["entropy_bpp"] > 0
    system = open_run(second.path).system()
    assert (system.code.counts_CL.sum(1) > 0).all()  # type: ignore[attr-defined]


class Judge(torch.nn.Module):
    """A network of distances, with operations that an optimising executor would fuse."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(torch.sigmoid(self.conv(a)) * 2 + 1)
        y = torch.tanh(torch.sigmoid(self.conv(b)) * 2 + 1)
        return (x - y).square().mean([1, 2, 3])


def test_a_perceptual_network_is_never_saved(shapes: Path, tmp_path: Path) -> None:
    """It is read from its file again, and a resumed run has the same bits."""
    content = to_file(Judge())
    (tmp_path / "net.pt").write_bytes(content)
    keys = {
        "loss.perceptual.path": str(tmp_path / "net.pt"),
        "loss.perceptual.sha256": hashlib.sha256(content).hexdigest(),
        "loss.perceptual_weight": 50.0,
    }
    recipe = raw("distortion", shapes, **keys)
    straight, _ = tiny.trained(tmp_path / "straight", recipe)
    tiny.trained(tmp_path / "run", recipe, tiny.stop_after(4))
    run, _ = tiny.trained(tmp_path / "run", recipe)
    tiny.assert_identical(tiny.state(run), tiny.state(straight))
    assert all(row["codec/perceptual"] > 0 for row in tiny.rows(run) if "codec/loss" in row)
    assert not any("perceptual" in name for name in tiny.state(run))
    assert run.system().frozen
