"""Images of finished runs: which ones, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cluster.results import pictures
from cluster.runs import Run, open_run
from gencomp.errors import InputError
from tests import tiny


def test_captions_are_the_psnr_of_8_bits() -> None:
    black, grey = np.zeros((4, 6, 3), np.uint8), np.full((4, 6, 3), 51, np.uint8)
    assert pictures.squared_error_of(black, grey) == pytest.approx((51 / 127.5) ** 2, abs=1e-15)
    captions = pictures.psnr_captions([black, black], [grey, black])
    assert captions == [f"{20 * np.log10(255 / 51):.1f} dB", "inf dB"]


def test_images_are_spaced_over_the_split(run: Run) -> None:
    chosen = pictures.choose_images([run], "test", 3)
    whole = pictures.choose_images([run], "test", None)
    count = len(chosen.split)
    assert chosen.rows == tuple(i * count // 3 for i in range(3))
    assert whole.rows == tuple(range(count))
    assert chosen.said == f"photos, test split, 3 of {count}"
    assert whole.thinned(3).rows == chosen.rows
    assert pictures.choose_rows(chosen, [2, 1]).rows == (2, 1)


def test_images_that_are_not_there(run: Run) -> None:
    with pytest.raises(InputError, match="at least one image must be shown"):
        pictures.choose_images([run], "test", 0)
    chosen = pictures.choose_images([run], "test", 1)
    with pytest.raises(InputError, match="image 99 is not in split 'test', which has images 0 to"):
        pictures.choose_rows(chosen, [0, 99])


def test_runs_are_named_by_what_tells_them_apart(run: Run, codec_run: Path) -> None:
    assert pictures.names_of([run]) == [run.name]
    assert pictures.names_of([run, open_run(codec_run)]) == ["dplc/wae", "dplc/codec"]


def test_another_shard_set_in_the_place_of_a_runs_own_is_refused(run: Run) -> None:
    file = run.path / "identity.json"
    identity = json.loads(file.read_text())
    assert pictures.evaluation_set(run).index_hash == identity["data"]
    file.write_text(json.dumps({**identity, "data": "0" * 64}))
    with pytest.raises(InputError, match=f"another shard set than run {run.path} was trained on"):
        pictures.evaluation_set(open_run(run.path))


def test_runs_that_are_not_finished(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a figure needs one run or more"):
        pictures.finished_runs([])
    started = tiny.started(tmp_path / "new", tiny.generator(photos))
    with pytest.raises(InputError, match="is not finished"):
        pictures.finished_runs([started.path])
