"""The codec of a run is loaded once, and never taken for that of another run."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.compressed_files import work
from gencomp.errors import InputError


def test_a_relative_path_is_another_run_in_another_directory(
    codec_run: Path, generator_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, run in (("one", codec_run), ("other", generator_run)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run").symlink_to(run)
    monkeypatch.chdir(tmp_path / "one")
    codec = work.opened(Path("run"), "last")
    assert work.opened(Path("run"), "last") is codec
    monkeypatch.chdir(tmp_path / "other")
    with pytest.raises(InputError, match="has no codec"):
        work.opened(Path("run"), "last")
