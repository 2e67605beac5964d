"""What a report says of a codec's files where few of them were measured."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cluster.runs import open_run
from gencomp.cli import main
from sweeps.report import codec_files


@pytest.mark.parametrize("images", [1, 3])
def test_one_picture_has_no_interval(codec_run: Path, tmp_path: Path, images: int) -> None:
    run = Path(shutil.copytree(codec_run, tmp_path / "run"))
    assert main(["files", str(run), "--images", str(images)]) == 0
    found = codec_files.held_out(open_run(run), print)
    assert found is not None and found.images == images
    if images == 1:
        assert found.mse_interval is None
    else:
        assert found.mse_interval is not None
        assert found.mse_interval[0] <= found.mse <= found.mse_interval[1]
