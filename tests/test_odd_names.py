"""Directories with odd names: every command works there, or says at once that Slurm cannot."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gencomp.cli import main
from tests import tiny

# In one name, since each command must bear each of them; Slurm bears only the first.
BORNE = "# ? & ; ' \" $HOME ( ) [ ] { } * ~ ! < > | ` = + , : @ ^ \t é λ"
NOT_BORNE = f"{BORNE} % %% \\ \n"
CURVE = (
    "--images 1 --block 1 --chains 4 --temperatures 4 --points 2 --bdmc-images 0 --pilot-images 1"
    " --pilot-temperatures 4 --leapfrog 2 --jobs 1 --time 5"
).split()


def done(*words: str | Path) -> None:
    assert main([str(word) for word in words]) == 0, words


def test_every_command_works_there(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / NOT_BORNE
    shutil.copytree(photos, place / "data")
    monkeypatch.chdir(place)
    few = {"training.steps": 4}
    tiny.write(tiny.generator(place / "data", few), place / "vae.yaml")
    tiny.write(tiny.codec(place / "data", place / "runs" / "vae", few), place / "codec.yaml")
    for recipe in ("vae", "codec"):
        done("train", place / f"{recipe}.yaml")
    codec = place / "runs" / "codec"
    done("evaluate", codec, "--metrics", "mse", "--images", "2")
    done("files", codec, "--images", "2")
    done("figure", "rates", codec, "--out", place / "rates.png")
    done("report", "--generator", place / "runs" / "vae", "--figures", place / "rates.png")
    done("compress", codec, place / "rates.png", place / "rates.gc")
    done("decompress", codec, place / "rates.gc", place / "again.png")
    done("shards", "stats", place / "data")
    done("status", place / "runs")
    done("slurm", "ais", place / "runs" / "vae", *CURVE, "--executor", "local")


@pytest.mark.slurm
def test_jobs_work_there(generator_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(generator_run, tmp_path / BORNE)
    done("slurm", "ais", run, *CURVE, "--executor", "slurm", "--wait")
    assert (run / "evaluations" / "ais" / "curve.json").is_file()


@pytest.mark.slurm
@pytest.mark.parametrize(("odd", "word"), [("%j", "a %"), ("\n", "a line break"), ("\\", "a back")])
def test_where_jobs_cannot_write_logs_nothing_is_submitted(
    odd: str, word: str, generator_run: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    run = shutil.copytree(generator_run, tmp_path / f"a{odd}b")
    said = refused("slurm", "ais", run, *CURVE, "--executor", "slurm")
    assert f"has {word}" in said and "jobs cannot write logs there" in said
