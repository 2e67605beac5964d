"""How numbers came about, in pairs."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import provenance
from cluster.evaluations.curve.results import collect
from cluster.results import curve_tables, pictures, protocol
from cluster.runs import Run
from gencomp.errors import InputError
from tests import tiny
from tests.curves import Evaluate, measure


def test_a_run_is_known_by_its_weights(run: Run) -> None:
    pairs = dict(protocol.of_run(run))
    assert pairs["weights"] == protocol.weights_of(run) == run.final_checkpoint().networks_hash()
    assert (pairs["stage"], pairs["length"], pairs["batch"]) == ("dplc/wae", "3 steps", "8 images")
    assert "torch" in pairs["versions"] and "constriction" in pairs["versions"]
    assert pairs["code"].startswith("commit ") and pairs["command"] == provenance.command()
    assert pairs["processor"].startswith(provenance.processor()["cpu"])


def test_records_of_older_runs_say_less() -> None:
    assert protocol.of_environment({"gencomp": "0.1.0", "torch": "2.13"}) == [
        ("code", "commit unknown"),
        ("versions", "gencomp 0.1.0, torch 2.13"),
    ]


def test_a_run_that_was_never_saved_has_no_weights(photos: Path, tmp_path: Path) -> None:
    run = tiny.started(tmp_path / "new", tiny.generator(photos))
    with pytest.raises(InputError, match="has no checkpoint yet"):
        protocol.weights_of(run)


def test_the_data_of_a_run(run: Run) -> None:
    shard_set = pictures.evaluation_set(run)
    pairs = dict(protocol.of_data(shard_set, run))
    assert pairs["index hash"] == shard_set.index_hash
    assert pairs["evaluated on"] == "test, its first 12 images"


def test_how_a_curve_was_measured(tuned: Evaluate) -> None:
    evaluation = tuned()
    measure(evaluation, (0, 1, 2, 3))
    collect(evaluation)
    pairs = dict(protocol.of_curve(evaluation, curve_tables.read(evaluation)))
    assert pairs["plan"] == evaluation.plan.hash
    assert pairs["images"] == "4 of 4, evenly spaced over test"
    assert pairs["seeds"] == "7 (measuring), 6 (tuning)"
