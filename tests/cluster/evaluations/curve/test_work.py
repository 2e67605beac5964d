"""The work on blocks: the same bits whatever stops it and however blocks are divided."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from cluster.evaluations.curve import work
from cluster.evaluations.curve.context import open_context, open_decoder, read_images
from cluster.evaluations.curve.parts import read as read_part
from cluster.evaluations.curve.plan import Evaluation
from gencomp.errors import InputError
from gencomp.rate_distortion.tuning import Tuning
from tests import tiny
from tests.curves import Evaluate, measure, parts


def test_a_part_holds_every_image_and_point(tuned: Evaluate) -> None:
    evaluation = tuned(block=2)
    measure(evaluation, (1,))
    table, protocol = read_part(evaluation.part(1))
    third, fourth = evaluation.plan.rows[2:]
    assert table["image"].to_pylist() == [third] * 5 + [fourth] * 5
    assert table["temperature"].to_pylist() == [2, 4, 7, 9, 11] * 2
    assert protocol["plan"] == evaluation.plan.hash
    assert protocol["tuning"] == Tuning.load(evaluation.tuning).hash
    for row in table.to_pylist():
        assert row["log_z"] == pytest.approx(-row["rate"] - row["beta"] * row["distortion"])
        assert 1 <= row["ess"] <= 4
        assert 0 <= row["acceptance"] <= 1
        assert row["nonfinite"] == 0
    assert not evaluation.chains(1).exists()


def test_the_number_of_jobs_does_not_change_a_bit(tuned: Evaluate) -> None:
    one, two, four = tuned("one"), tuned("two"), tuned("four")
    measure(one, (0, 1, 2, 3))
    measure(two, (2, 3), (0, 1))
    measure(four, (3,), (1,), (0,), (2,))
    assert parts(one) == parts(two) == parts(four)
    assert len(parts(one)) == 4


def test_a_finished_part_is_not_made_again(tuned: Evaluate) -> None:
    evaluation = tuned()
    measure(evaluation, (0,))
    stamp = evaluation.part(0).stat().st_mtime_ns
    measure(evaluation, (0, 1))
    assert evaluation.part(0).stat().st_mtime_ns == stamp
    assert evaluation.part(1).exists()


def test_damaged_chains_are_not_gone_on_with(
    tuned: Evaluate, caplog: pytest.LogCaptureFixture
) -> None:
    whole, damaged = tuned("whole"), tuned("damaged")
    measure(whole, (0,))
    block = work.open_block(open_context(damaged), 0)
    block.advance()
    block.save()
    tiny.flip(damaged.chains(0), at=damaged.chains(0).stat().st_size - 5)
    with caplog.at_level(logging.WARNING):
        measure(damaged, (0,))
    assert "the block starts anew" in caplog.text
    assert parts(whole) == parts(damaged)


def test_other_weights_than_planned_are_refused(tuned: Evaluate) -> None:
    evaluation = tuned()
    plan = evaluation.plan.model_copy(update={"decoder": "0" * 32})
    with pytest.raises(InputError, match="has other weights"):
        open_decoder(Evaluation(evaluation.path, plan))


def test_another_shard_set_than_planned_is_refused(tuned: Evaluate) -> None:
    evaluation = tuned()
    other = evaluation.plan.model_copy(update={"data": "0" * 32})
    with pytest.raises(InputError, match="is another one than when"):
        read_images(replace(evaluation, plan=other), (0,))
