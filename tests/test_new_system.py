"""CONTRIBUTING's "A new system", followed to the letter with the smallest method there is.

A copy of the project gets the folder of the method, one branch in `gencomp/systems/__init__.py` and
one line in `gencomp/recipes/__init__.py`; nothing else. It then trains, sweeps, compresses, is
evaluated and reported by the same commands as every other method.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from shards.building.build import build
from tests.conftest import ROOT
from tests.waiting import PATIENCE

PACKAGES = ("cluster", "gencomp", "shards", "slurm", "sweeps")
RECIPE = {
    "system": "identity",
    "stage": "affine",
    "data": {"shards": "photos", "batch_size": 8},
    "training": {"steps": 20, "checkpoint_every": 10},
    "optimizer": {"learning_rate": 0.05},
    "evaluation": {"every": 10, "batch_size": 8, "limit": 12},
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with one more system."""
    root = tmp_path_factory.mktemp("project")
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, root / package, ignore=ignored)
    shutil.copytree(ROOT / "tests" / "throwaway", root / "gencomp" / "systems" / "identity")
    _insert(
        root / "gencomp" / "systems" / "__init__.py",
        before="    raise TypeError(",
        lines="        case IdentityRecipe():\n"
        "            from gencomp.systems.identity.system import Identity\n\n"
        "            return Identity(recipe)\n",
    )
    for file in ("systems", "recipes"):
        _insert(
            root / "gencomp" / file / "__init__.py",
            before="from gencomp.systems.vae.recipe import",
            lines="from gencomp.systems.identity.recipe import IdentityRecipe\n",
        )
    _insert(
        root / "gencomp" / "recipes" / "__init__.py",
        before='    ("vae", "elbo")',
        lines='    ("identity", "affine"): IdentityRecipe,\n',
    )
    build("photos", root / "photos", limit=24)
    (root / "identity.yaml").write_text(yaml.safe_dump(RECIPE))
    return root


@pytest.mark.long
def test_it_trains_sweeps_compresses_is_evaluated_and_reported(project: Path) -> None:
    assert "quantizer.levels" in _run(project, "train", "identity.yaml", "--help")
    _run(project, "train", "identity.yaml")
    run = project / "runs" / "identity"
    result = json.loads((run / "result.json").read_text())
    # Four levels of two on [-1, 1] leave at most (1/4)² / 3 once gain and offset are fitted.
    assert result["mse"] < 0.03

    sweep = {
        "base": "identity.yaml",
        "space": {"quantizer.levels": {"grid": [2, 16]}},
        "objective": {"minimise": "mse"},
    }
    (project / "levels.yaml").write_text(yaml.safe_dump(sweep))
    _run(project, "sweep", "levels.yaml")
    trials = sorted((project / "runs" / "levels" / "trials").iterdir())
    errors = [json.loads((trial / "result.json").read_text())["mse"] for trial in trials]
    assert len(trials) == 2 and max(errors) > 4 * min(errors)

    pixels = np.random.default_rng(3).integers(0, 256, (31, 45, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(project / "noise.png")
    _run(project, "compress", "runs/identity", "noise.png", "noise.gcp")
    # 21 bytes of container, 6 of which are digests.
    assert (project / "noise.gcp").stat().st_size < 31 * 45 * 3 * 2 / 8 + 22
    _run(project, "decompress", "runs/identity", "noise.gcp", "decoded.png")
    decoded = np.asarray(Image.open(project / "decoded.png"), np.float64)
    assert decoded.shape == pixels.shape and np.abs(decoded - pixels).mean() < 20

    _run(project, "evaluate", "runs/identity", "--metrics", "mse,psnr,ms_ssim", "--images", "4")
    _run(project, "files", "runs/identity", "--images", "4")
    rates = json.loads((run / "evaluations" / "files" / "rates.json").read_text())["metrics"]
    metrics = json.loads((run / "evaluations" / "metrics" / "metrics.json").read_text())["metrics"]
    assert rates["bpp"]["value"] == rates["nominal_bpp"]["value"] == 6
    assert rates["file_bpp"]["value"] > 6
    assert rates["mse"]["value"] == pytest.approx(metrics["mse"]["value"], rel=1e-3)

    parts = ("--generator", "runs/identity", "--sweep", "runs/levels")
    _run(project, "report", *parts, "--out", "report.html")
    assert "identity" in (project / "report.html").read_text()


def _insert(file: Path, before: str, lines: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.count(before) == 1
    file.write_text(text.replace(before, lines + before), encoding="utf-8")


def _run(project: Path, *words: str) -> str:
    """The output of a command of the copy."""
    environment = {**os.environ, "PYTHONPATH": str(project), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "gencomp.cli", *words]
    done = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, f"{' '.join(words)}:\n{done.stdout}\n{done.stderr}"
    return done.stdout
