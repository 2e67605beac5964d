"""A project that was moved to another directory: what is said, and that it mends the project."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.runs import Run
from gencomp.cli import main
from tests import tiny


@pytest.fixture
def project(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A generator and a codec whose data and runs were moved from `old` to `new`."""
    old, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(photos, old / "data")
    monkeypatch.setattr("sys.argv", ["gencomp", "train", "tiny.yaml"])
    tiny.trained(old / "runs" / "generator", tiny.generator(old / "data"))
    tiny.trained(old / "runs" / "codec", tiny.codec(old / "data", old / "runs" / "generator"))
    old.rename(new)
    return new


EVALUATE = ("evaluate", "new/runs/codec", "--metrics", "mse", "--images", "4")


@pytest.mark.parametrize(
    "words",
    [
        EVALUATE,
        ("files", "new/runs/codec", "--images", "2"),
        ("slurm", "ais", "new/runs/codec", "--images", "2"),
        ("figure", "rates", "new/runs/codec", "--out", "new.png"),
        ("report", "--generator", "new/runs/codec"),
    ],
)
def test_the_command_that_mends_it_is_named(
    words: tuple[str, ...], project: Path, refused: Callable[..., str]
) -> None:
    if words[1] == "ais" or words[0] == "report":
        words = tuple(word.replace("codec", "generator") for word in words)
    name = "generator" if "new/runs/generator" in words else "codec"
    assert refused(*words) == (
        f"gencomp: error: run new/runs/{name} was made on the shard set"
        f" {project.with_name('old') / 'data'}, which is not there: if the project has moved,"
        " `gencomp train tiny.yaml`, given again from its new place, notes the new paths"
    )


def test_that_command_mends_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = project / "runs"
    tiny.started(runs / "generator", tiny.generator(project / "data"))
    tiny.started(runs / "codec", tiny.codec(project / "data", runs / "generator"))
    monkeypatch.chdir(project.parent)
    assert main(list(EVALUATE)) == 0
    assert Run(runs / "codec").recipe().parent_runs() == {"generator": str(runs / "generator")}
