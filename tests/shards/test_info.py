"""dataset.json: it comes back as it was written, and other files are refused with the mend."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from shards.errors import ShardError
from shards.info import DatasetInfo, ShardInfo, SplitInfo, Transform, read_info, write_info

INFO = DatasetInfo(
    name="streets",
    source="cityscapes",
    parameters={"size": "512x1024"},
    transform=Transform(size=(512, 1024), geometry="centre crop", storage="png"),
    location="../tars",
    splits={
        "train": SplitInfo(
            samples=3, shards=[ShardInfo(name="train-000000.tar", bytes=1, samples=3, hash="ab")]
        )
    },
    classes=["road"],
    maps=["label.png"],
    index_hash="h",
    index_bytes_hash="b",
    created_by="a test",
)


def test_round_trip(tmp_path: Path) -> None:
    write_info(INFO, tmp_path)
    assert read_info(tmp_path) == INFO
    assert INFO.counts == {"train": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["dataset.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 1}, "made by an older gencomp .*build the set anew"),
        ({"format_version": 3}, "format version 3, this gencomp reads 2: upgrade"),
        ({"format_version": "two"}, "format version two, this gencomp reads 2"),
        ({"colour": "red"}, "colour: Extra inputs"),
        ({"splits": {"train": {"samples": 3}}}, "splits.train.shards: Field required"),
    ],
)
def test_other_content_is_refused(change: dict, message: str, tmp_path: Path) -> None:
    write_info(INFO, tmp_path)
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ShardError, match=re.escape(str(path)) + ".*" + message):
        read_info(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"format_version": 2', b"\xff"])
def test_what_is_no_description_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_bytes(content)
    with pytest.raises(ShardError, match=r"dataset\.json cannot be read: it is no JSON object"):
        read_info(tmp_path)


def test_a_directory_without_one_says_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"not a shard set: it has no dataset\.json"):
        read_info(tmp_path)
    (tmp_path / "a.tar").touch()
    with pytest.raises(ShardError, match=f"run `gencomp shards index {tmp_path}`"):
        read_info(tmp_path)
    (tmp_path / "streets").mkdir()
    write_info(INFO, tmp_path / "streets")
    with pytest.raises(ShardError, match=r"no shard set .*/strets; .* holds streets"):
        read_info(tmp_path / "strets")
