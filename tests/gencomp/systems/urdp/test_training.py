"""Every stage through the loop: interrupted it ends with the same bits, and its codec works."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shards
from cluster.runs import open_run
from gencomp import recipes
from gencomp.errors import InputError
from gencomp.system import Picture
from tests import tiny
from tests.gencomp import vae_cases
from tests.gencomp.urdp_cases import NARROW, RECIPES

SHORT: dict[str, Any] = {
    "data.batch_size": 16,
    "training.epochs": None,
    "training.steps": 6,
    "training.log_every": 1,
    "training.checkpoint_every": 2,
    "training.sample_every": 5,
    "evaluation.every": 5,
    "evaluation.batch_size": 16,
    "evaluation.limit": 20,
}


def raw(stage: str, blobs: Path, parent: Path | None = None, **overrides: Any) -> dict[str, Any]:
    role = "decoder" if stage == "critic" else "encoder"
    narrow = NARROW if stage == "end_to_end" else {f"parents.{role}": str(parent)}
    where = {"data.shards": str(blobs)}
    return recipes.with_overrides(
        recipes.read(RECIPES[stage]), {**narrow, **SHORT, **where, **overrides}
    )


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vae_cases.blobs(tmp_path_factory.mktemp("blobs"), side=28)


@pytest.fixture(scope="module")
def base(blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished end-to-end run."""
    run = tmp_path_factory.mktemp("base") / "run"
    tiny.trained(run, raw("end_to_end", blobs))
    return run


@pytest.mark.parametrize("stage", RECIPES)
def test_crashed_and_resumed(stage: str, blobs: Path, base: Path, tmp_path: Path) -> None:
    """Weights, optimizers, metrics log and result are those of a straight run."""
    recipe = raw(stage, blobs, base)
    straight, outcome = tiny.trained(tmp_path / "straight", recipe)
    assert outcome.finished and all(map(math.isfinite, outcome.metrics.values()))
    with pytest.raises(tiny.Crash):
        tiny.trained(tmp_path / "run", recipe, tiny.crash_after(3))
    run, _ = tiny.trained(tmp_path / "run", recipe)
    tiny.assert_identical(tiny.state(run), tiny.state(straight))
    assert tiny.rows(run) == tiny.rows(straight)


def test_steps_alternate(blobs: Path, base: Path) -> None:
    kinds = [
        "critic" if "critic/loss" in row else "codec"
        for row in tiny.rows(tiny.Run(base))
        if {"critic/loss", "codec/loss"} & row.keys()
    ]
    assert kinds == ["critic", "codec"] * 3


def test_decoders_of_one_encoder_read_its_files(blobs: Path, base: Path, tmp_path: Path) -> None:
    tiny.trained(tmp_path / "universal", raw("universal", blobs, base))
    tiny.trained(tmp_path / "refinement", raw("refinement", blobs, base))
    writer, universal, refined = (
        open_run(path).system().codec()
        for path in (base, tmp_path / "universal", tmp_path / "refinement")
    )
    assert writer and universal and refined
    split = shards.open_set(blobs).split("test")
    pictures = [Picture(split.read(row).image, index=row) for row in range(5)]
    stream = refined.compress_jointly(pictures)
    for codec in (writer, universal, refined):
        for place, picture in enumerate(pictures):
            found = codec.decompress(stream, place=place)
            assert np.array_equal(found, codec.reconstruct(picture))


def test_the_frozen_encoder_is_that_of_the_run(blobs: Path, base: Path, tmp_path: Path) -> None:
    """A whole epoch leaves the parent's encoder as it was, statistics included."""
    overrides = {"training.steps": 16}
    tiny.trained(tmp_path / "run", raw("universal", blobs, base, **overrides))
    frozen = open_run(tmp_path / "run").system().frozen["base_encoder"].state_dict()
    parent = open_run(base).system().networks["encoder"].state_dict()
    tiny.assert_identical(dict(frozen), dict(parent))


def test_a_run_of_another_stage_is_no_parent(blobs: Path, base: Path, tmp_path: Path) -> None:
    tiny.trained(tmp_path / "universal", raw("universal", blobs, base))
    with pytest.raises(InputError, match="urdp/universal needs one of urdp/end_to_end"):
        tiny.trained(tmp_path / "again", raw("universal", blobs, tmp_path / "universal"))
