"""The columns that reading needs agree with the index, also when shared, whatever happens."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from shards.errors import ShardError
from shards.info import read_info
from shards.reading.columns import Columns, columns
from tests.processes import times_open
from tests.shards.indexes import Shards, large_set, random_row, random_shards, write_set
from tests.waiting import PATIENCE, wait_for

ROWS = 12_000
NOWHERE = Path("no set is here")


def agrees(found: Columns, shards: list[list], maps: bool) -> None:
    shards = [rows for rows in shards if rows]
    rows = [row for part in shards for row in part]
    assert found.rows == len(rows)
    assert found.shards(np.arange(len(rows))[::-1]) == list(range(len(shards)))
    for i, row in enumerate(rows):
        assert found.key(i) == row.key
        assert shards[found.shard(i)][0].shard == row.shard
        begin, rest = int(found.image_begin[i]), int(found.image_rest[i])
        assert (found.offset[i], found.span[i], found.check[i]) == (row.offset, row.span, row.check)
        assert (row.offset + begin, row.span - begin - rest) == (row.image_offset, row.image_size)
        assert found.label[i] == (-1 if row.label is None else row.label)
        assert {
            name: (row.offset + int(begins[i]), int(sizes[i]))
            for name, (begins, sizes) in found.maps.items()
        } == {m.name: (m.offset, m.size) for m in row.members if maps and m.name.endswith(".png")}


@settings(max_examples=25)
@given(random_shards(), random_shards(maps=True))
def test_columns_agree_with_the_index(plain: Shards, mapped: Shards) -> None:
    for rows, maps in ((plain, False), (mapped, True)):
        with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
            patch.setenv("GENCOMP_CACHE", f"{directory}/cache")
            info = write_set(rows, Path(directory), maps)
            for split, parts in rows.items():
                agrees(columns(Path(directory), info, split), parts, maps)
                agrees(columns(NOWHERE, info, split), parts, maps)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("large")
    large_set(directory, ROWS, 500)
    return directory


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GENCOMP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def opened(directory: Path) -> Columns:
    return columns(directory, read_info(directory), "train")


def opened_without_index(directory: Path) -> Columns:
    return columns(NOWHERE, read_info(directory), "train")


def same(a: Columns, b: Columns) -> bool:
    names = ("offset", "span", "check", "image_begin", "image_rest", "label")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names) and all(
        a.key(row) == b.key(row) for row in range(0, a.rows, 997)
    )


def the_file(cache: Path) -> Path:
    (path,) = cache.glob("indexes/*/train.columns")
    return path


def test_a_set_costs_a_file_once(large: Path, cache: Path) -> None:
    first = opened(large)
    stamp = the_file(cache).stat()
    assert stamp.st_size < 64 * ROWS
    second = opened_without_index(large)
    assert same(first, second)
    assert the_file(cache).stat().st_mtime_ns == stamp.st_mtime_ns
    assert sorted(p.name for p in the_file(cache).parent.iterdir()) == [
        "train.columns",
        "train.lock",
    ]
    with pytest.raises(ValueError, match="read-only"):
        second.check[0] = 0


def test_damage_is_noticed_and_mended(large: Path, cache: Path) -> None:
    first = opened(large)
    path = the_file(cache)
    whole = path.read_bytes()
    damaged = [b"", whole[:10], whole[:-1], whole + b"\0", bytes(len(whole))]
    for place in np.linspace(0, len(whole) - 1, 20).astype(int).tolist():
        damaged.append(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
    for content in damaged:
        # What is mapped stays as it is, so a new file takes its place.
        path.unlink()
        path.write_bytes(content)
        assert same(opened(large), first)
        assert path.read_bytes() == whole
        assert same(opened_without_index(large), first)


CHILD = """
import sys
from pathlib import Path
from shards.reading.reader import open_set
split = open_set(Path(sys.argv[1])).split("train")
print(split.key(0), split.key(len(split) - 1), int(split._columns.check.sum()), flush=True)
"""
# Stops when the file is half written, and never goes on.
HALTING = """
import sys
from shards.index import IndexReader
def halt(*_):
    print("half", flush=True)
    sys.stdin.read()
IndexReader.tables = halt
"""


def child(directory: Path, code: str = CHILD, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        **options,
    )


def answers(directory: Path, split: Columns) -> str:
    return f"{split.key(0)} {split.key(ROWS - 1)} {int(split.check.sum())}\n"


def test_processes_open_at_once_while_one_is_killed(large: Path, cache: Path) -> None:
    """The maker halts with its file half written, others wait for it, and it is killed."""
    expected = answers(large, opened(large))
    path = the_file(cache)
    path.unlink()
    maker = child(large, HALTING + CHILD)
    assert maker.stdout is not None and maker.stdout.readline() == "half\n"
    others = [child(large) for _ in range(2)]
    lock = path.with_suffix(".lock")
    assert wait_for(lambda: all(times_open(other.pid, lock) for other in others))
    assert path.with_suffix(".partial").exists()
    assert not path.exists() and [other.poll() for other in others] == [None, None]
    maker.kill()
    maker.communicate()
    for other in others:
        assert other.communicate(timeout=PATIENCE) == (expected, "")
    assert not path.with_suffix(".partial").exists()
    assert answers(large, opened_without_index(large)) == expected


def test_what_a_killed_maker_left_is_not_believed(large: Path, cache: Path) -> None:
    expected = opened(large)
    path = the_file(cache)
    path.with_suffix(".partial").write_bytes(path.read_bytes()[:5000])
    path.unlink()
    assert same(opened(large), expected)
    assert not path.with_suffix(".partial").exists()


def test_without_a_cache_the_arrays_are_its_own(large: Path, cache: Path) -> None:
    cache.write_text("a file where the directory should be", encoding="utf-8")
    found = opened(large)
    cache.unlink()
    assert same(found, opened(large))


def test_a_full_disk_is_no_obstacle(large: Path, cache: Path) -> None:
    expected = answers(large, opened(large))
    path = the_file(cache)
    path.unlink()
    limited = child(
        large,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16)),
    )
    assert limited.communicate(timeout=PATIENCE) == (expected, "")
    assert [p.name for p in path.parent.iterdir()] == ["train.lock"]


def test_an_index_and_a_description_that_disagree(large: Path, cache: Path) -> None:
    info = read_info(large)
    first, second, *rest = info.splits["train"].shards

    def refused(samples: int, shards: list) -> None:
        split = info.splits["train"].model_copy(update={"samples": samples, "shards": shards})
        with pytest.raises(ShardError, match="'train' has 12000 rows in 24 shards in the index"):
            columns(large, info.model_copy(update={"splits": {"train": split}}), "train")
        assert not list(cache.rglob("*.columns"))

    refused(ROWS - first.samples, [second, *rest])
    refused(ROWS, [second, first, *rest])
    refused(ROWS, [first, second.model_copy(update={"name": "other.tar"}), *rest])
    refused(
        ROWS,
        [
            first.model_copy(update={"samples": first.samples - 1}),
            second.model_copy(update={"samples": second.samples + 1}),
            *rest,
        ],
    )


def test_a_map_that_not_every_sample_has_is_refused(tmp_path: Path, cache: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [random_row(rng, "train", 0, i, False, 9, i != 3) for i in range(5)]
    info = write_set({"train": [rows]}, tmp_path, maps=True)
    with pytest.raises(ShardError, match=r"the map 'label.png', but not every sample"):
        columns(tmp_path, info, "train")


def test_arrow_is_imported_once_a_node(large: Path, cache: Path) -> None:
    """It takes 0.3 s, which every later process of the node saves."""
    told = CHILD + 'print("pyarrow" in sys.modules)\n'
    for there in ("True", "False"):
        out, error = child(large, told).communicate(timeout=PATIENCE)
        assert out.split()[-1] == there, error
