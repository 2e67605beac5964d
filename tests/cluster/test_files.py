"""Files have the rights that the umask grants, however they are written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import files
from cluster.logs import process_log
from shards.building.build import build
from tests import tiny


@pytest.fixture(params=["0o002", "0o007", "0o022", "0o077"])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    mask = int(request.param, 8)
    before = os.umask(mask)
    yield mask
    os.umask(before)


def wrong(directory: Path, umask: int) -> list[str]:
    """The files and directories with other rights than the umask grants."""
    found = {path: path.stat().st_mode & 0o777 for path in directory.rglob("*")}
    granted = {path: (0o777 if path.is_dir() else 0o666) & ~umask for path in found}
    return [f"{path}: {mode:o}" for path, mode in found.items() if mode != granted[path]]


def test_files_that_are_replaced(tmp_path: Path, umask: int) -> None:
    for _ in range(2):
        files.write_bytes(tmp_path / "folder" / "bytes", b"x")
        files.write_text(tmp_path / "text", "x")
        files.write_json(tmp_path / "json", {}, durable=False)
    process_log.note(tmp_path, "INFO", "a line")
    with files.locked(tmp_path):
        assert not wrong(tmp_path, umask)


@pytest.mark.parametrize("umask", ["0o002"], indirect=True)
def test_a_set_and_a_run(tmp_path: Path, umask: int) -> None:
    """All that a group needs to go on with each other's runs."""
    build("photos", tmp_path / "photos", options={"size": "64"}, shard_size=16, limit=48)
    tiny.trained(tmp_path / "run", tiny.generator(tmp_path / "photos"))
    assert not wrong(tmp_path, umask)


def test_nothing_is_left_of_a_file_that_could_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(OSError):
        files.write_bytes(tmp_path / "there", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
