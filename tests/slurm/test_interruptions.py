"""Blocks of every kind: the same bits however they are shared out and wherever they are stopped."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.evaluations.curve import parts, work
from cluster.evaluations.curve.context import open_context
from cluster.evaluations.curve.plan import Evaluation
from cluster.evaluations.curve.results import collect
from gencomp.cli import main
from gencomp.errors import InputError
from slurm.kinds.curve import CurveJobs, Measure
from tests.curves import parts as parts_of
from tests.slurm.conftest import options

STEPS = 11
FORWARD, BACKWARD = 3, 4


@pytest.fixture
def whole(own: list[str]) -> Evaluation:
    """An evaluation of five images with a certificate at two betas, undisturbed."""
    certificate = {"bdmc_images": 2, "bdmc_betas": "0.01 0.1", "block": 2}
    words = options(executor="debug", images=5, temperatures=STEPS + 1, **certificate)
    assert main(["slurm", "ais", *own, *words]) == 0
    return Evaluation.open("curve")


def unmeasured(whole: Evaluation) -> Evaluation:
    """A copy that has its tuning and nothing else."""
    evaluation = replace(whole, path=Path(tempfile.mkdtemp(dir=whole.path.parent)))
    for name in ("plan.json", "tuning.npz"):
        shutil.copy(whole.path / name, evaluation.path / name)
    return evaluation


def test_blocks_hold_what_their_kind_measures(whole: Evaluation) -> None:
    assert [block.kind for block in whole.plan.blocks] == [
        *["measure"] * 3,
        *["forward", "backward"] * 2,
    ]
    tables = [parts.read(whole.part(block))[0] for block in range(7)]
    assert tables[0]["kind"].unique().to_pylist() == ["measure"]
    assert tables[0].num_rows == 2 * 5
    forward, backward = tables[-2].to_pylist(), tables[-1].to_pylist()
    for up, down in zip(forward, backward, strict=True):
        assert (up["kind"], down["kind"]) == ("forward", "backward")
        assert up["image"] == down["image"]
        assert up["temperature"] == down["temperature"] == STEPS
        assert up["beta"] == down["beta"] == 0.1
        assert up["log_z"] == pytest.approx(-up["rate"] - 0.1 * up["distortion"])
        # Both bound the log Z of one image, which is far from 0.
        assert up["log_z"] < 0
        assert up["log_z"] == pytest.approx(down["log_z"], rel=0.3)
        assert down["rate"] != down["rate"]
        assert down["distortion"] != down["distortion"]
    assert sum(whole.block_steps(block) for block in (5, 6)) == 2 * STEPS
    assert 0 < whole.block_steps(FORWARD) < STEPS


@given(data=st.data())
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_shares_and_interruptions_leave_no_trace(whole: Evaluation, data: st.DataObject) -> None:
    evaluation = unmeasured(whole)
    order = data.draw(st.permutations(range(7)), label="order")
    cuts = sorted(data.draw(st.lists(st.integers(0, 7), max_size=3), label="cuts"))
    stops = data.draw(st.lists(st.integers(0, STEPS - 1), max_size=2), label="stops")
    place = open_context(evaluation)
    for number in order[:2]:
        for steps in stops:
            block = work.open_block(place, number)
            for _ in range(min(steps, block.run.length - block.steps)):
                block.advance()
            block.save()
    for count, (a, b) in enumerate(zip([0, *cuts], [*cuts, 7], strict=True)):
        Measure(f"measure-{count}", str(evaluation.path), order[a:b])()
    assert parts_of(evaluation) == parts_of(whole)
    collect(evaluation, require_all=True)
    for name in ("curve.json", "curve.parquet"):
        assert (evaluation.path / name).read_bytes() == (whole.path / name).read_bytes()


def test_a_bound_from_the_other_side_is_refused(whole: Evaluation) -> None:
    shutil.copy(whole.part(FORWARD), whole.part(BACKWARD))
    with pytest.raises(InputError, match=r"block-00004.parquet belongs to another curve: its blo"):
        collect(whole)


@pytest.mark.parametrize("key", ["decoder", "data", "tuning", "schedule", "kind"])
def test_each_hash_of_a_part_is_looked_at(whole: Evaluation, key: str) -> None:
    table, metadata = parts.read(whole.part(1))
    said = json.dumps({**metadata, key: "another"})
    pq.write_table(table.replace_schema_metadata({"gencomp": said}), whole.part(1))
    with pytest.raises(InputError, match=f"its {key} is another, not"):
        collect(whole)


def test_a_curve_does_without_its_certificate(whole: Evaluation) -> None:
    whole.part(BACKWARD).unlink()
    assert not CurveJobs(whole).collected
    curve = collect(whole)
    assert curve.missing == [BACKWARD]
    assert curve.means["missing_images"] == []
    assert curve.means["images"] == 5
    assert [bracket["asked"] for bracket in curve.means["bdmc"]] == [0.1]
    assert CurveJobs(whole).collected
