"""A disk that is full ends a sweep with one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ray.tune import TuneError

from cluster.checkpoints.writer import SavingError
from gencomp.cli import main
from sweeps.run import room_needed
from sweeps.time_budget import TimeBudget
from tests import tiny
from tests.cluster.checkpoints.test_writer import files_limited_to


def _as_tune_does(budget: TimeBudget) -> None:
    """A callback's error in the text of another."""
    try:
        budget.save()
    except OSError as error:
        raise TuneError(str(error))  # noqa: B904


def test_what_comes_from_it_is_one_sentence(tmp_path: Path) -> None:
    sentence = rf"{tmp_path} could not be written: File too large; make room, and the same command"
    with files_limited_to(0):
        with pytest.raises(SavingError, match=sentence), room_needed(tmp_path):
            TimeBudget(tmp_path, 9).save()
        with pytest.raises(SavingError, match=sentence), room_needed(tmp_path):
            try:
                _as_tune_does(TimeBudget(tmp_path, 9))
            except TuneError as error:
                raise RuntimeError("the sweep failed") from error
    with pytest.raises(FileNotFoundError), room_needed(tmp_path):
        (tmp_path / "nothing").read_text()


def test_the_command_says_it(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tiny.write(tiny.generator(photos), tmp_path / "base.yaml")
    file = tmp_path / "weights.yaml"
    sweep = {"base": str(base), "space": {"loss.mmd_weight": {"grid": [1]}}}
    file.write_text(yaml.safe_dump(sweep | {"objective": {"minimise": "mse"}}))
    command = ["sweep", str(file), "--runs", str(tmp_path / "runs")]
    with files_limited_to(0):
        assert main(command) == 1
    said = capsys.readouterr().err
    assert said.startswith("gencomp: error: ") and len(said.splitlines()) == 1
    assert "could not be written: File too large; make room, and the same command goes on" in said
