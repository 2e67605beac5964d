"""The wheel, installed in an environment of its own, does the main work outside the clone."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests import tiny
from tests.conftest import ROOT
from tests.gencomp.test_codec_commands import write_image
from tests.waiting import PATIENCE

PACKAGES = ("cluster", "gencomp", "shards", "slurm", "sweeps")
FILES = ("pyproject.toml", "README.md", "LICENSE")


def _pip(*words: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    subprocess.run([*command, *map(str, words)], check=True, timeout=PATIENCE)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, and with everything else from the one that runs this test."""
    source = tmp_path_factory.mktemp("source")
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, source / package, ignore=ignored)
    for file in FILES:
        shutil.copy(ROOT / file, source / file)
    wheels, made = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("environment")
    _pip("wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", wheels, source)
    (wheel,) = wheels.glob("gencomp-*.whl")
    venv.create(made, symlinks=True)
    _pip("--python", made / "bin" / "python", "install", "--no-deps", "--no-index", wheel)
    (packages,) = (made / "lib").glob("python*/site-packages")
    # These folders come after the wheel's own, and their .pth files, such as that of the clone, are
    # not read.
    others = "\n".join(site.getsitepackages())
    (packages / "others.pth").write_text(f"{others}\n", encoding="utf-8")
    return made


@pytest.mark.slow
def test_a_wheel_does_the_main_work(environment: Path, photos: Path, tmp_path: Path) -> None:
    def run(*words: str | Path, program: str = "gencomp") -> str:
        hidden = ("PYTHONPATH", "VIRTUAL_ENV")
        done = subprocess.run(
            [str(environment / "bin" / program), *map(str, words)],
            cwd=tmp_path,
            env={name: value for name, value in os.environ.items() if name not in hidden},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = run("-c", "import gencomp, slurm; print(gencomp.__file__)", program="python")
    assert Path(where.strip()).is_relative_to(environment)
    assert "usage: gencomp" in run("--help")
    assert "that gencomp needs" in run("doctor")
    assert "dplc_wae_photos" in run("recipes") and run("recipes", "dplc_wae_photos")
    few = {"training.steps": 4}
    run("train", tiny.write(tiny.generator(photos, few), tmp_path / "generator.yaml"))
    raw = tiny.codec(photos, tmp_path / "runs" / "generator", few)
    run("train", tiny.write(raw, tmp_path / "codec.yaml"))
    image = write_image(tmp_path / "a.png", 1)
    run("compress", "runs/codec", image, "a.gcp")
    run("decompress", "runs/codec", "a.gcp", "b.png")
    run("export", "runs/codec", "m.gencomp")
    run("compress", "m.gencomp", image, "m.gcp")
    assert (tmp_path / "m.gcp").read_bytes() == (tmp_path / "a.gcp").read_bytes()
    assert "m.gencomp" in run("models", ".")
