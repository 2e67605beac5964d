"""The jobs of a curve: what they leave behind, and what they say."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from cluster import files
from gencomp.errors import InputError
from gencomp.rate_distortion.tuning import Tuning
from slurm.kinds.curve import CurveJobs, Measure, Pilot
from tests.curves import Evaluate


def test_the_pilot_freezes_a_tuning_of_the_plan(evaluate: Evaluate) -> None:
    evaluation = evaluate()
    Pilot("pilot-0", str(evaluation.path))()
    tuning = Tuning.load(evaluation.tuning)
    assert (tuning.temperatures, tuning.leapfrog, tuning.seed) == (12, 2, 6)
    assert tuning.betas[-1] == 0.1
    assert files.read_json(CurveJobs(evaluation).progress("pilot-0"))["ended"] == "done"


def test_jobs_without_a_tuning_say_so(evaluate: Evaluate) -> None:
    evaluation = evaluate()
    with pytest.raises(InputError, match="run the tuning round first"):
        Measure("measure-0", str(evaluation.path), [0])()
    ended = files.read_json(CurveJobs(evaluation).progress("measure-0"))["ended"]
    assert ended.startswith("failed: InputError: there is no tuning")


def test_jobs_travel_as_small_pickles(tmp_path: Path) -> None:
    assert len(pickle.dumps(Measure("measure-1", str(tmp_path), range(100)))) < 2000
    assert len(pickle.dumps(Pilot("pilot-0", str(tmp_path)))) < 500
