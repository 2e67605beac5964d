"""Downsampled ImageNet from npz files and pickles, loose and zipped, in bounded memory."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from shards.building.build import build
from shards.building.sources.imagenet32 import imagenet32
from shards.errors import ShardError
from tests.shards.building.sources.reading import check_arrays
from tests.shards.building.sources.test_cifar10 import Attack, python2

# One batch is larger than the four megabytes from which a pickle's pixels stay in their file.
COUNTS = {**{f"train_data_batch_{i}": 3 + i for i in range(1, 10)}, "train_data_batch_10": 1400}
COUNTS["val_data"] = 12


def batch(name: str, side: int = 32) -> dict[str, object]:
    """The content of the original files: rows of planes, labels from 1, the mean of training."""
    rng = np.random.default_rng([COUNTS[name], side])
    rows = rng.integers(0, 256, (COUNTS[name], 3 * side * side), dtype=np.uint8)
    labels = rng.integers(1, 1001, COUNTS[name]).tolist()
    mean = {} if name == "val_data" else {"mean": rng.random(3 * side * side)}
    return {"data": rows, "labels": labels, **mean}


def images(rows: np.ndarray, side: int) -> np.ndarray:
    planes = np.split(rows, 3, axis=1)
    return np.stack([plane.reshape(-1, side, side) for plane in planes], axis=-1)


def packed(name: str, side: int, form: str) -> tuple[str, bytes]:
    """A batch as a file: its name and its bytes."""
    content = batch(name, side)
    if form == "python2":
        return name, b"\x80\x02" + python2(
            {k.encode(): v for k, v in content.items() if k != "mean"}
        ) + b"."
    if form.startswith("pickle"):
        return name, pickle.dumps(content, int(form[-1]))
    stream = io.BytesIO()
    save = np.savez_compressed if form == "npz compressed" else np.savez
    save(stream, **content)  # type: ignore[arg-type]
    return f"{name}.npz", stream.getvalue()


def write(root: Path, form: str, side: int = 32, names: tuple[str, ...] = tuple(COUNTS)) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for name in names:
        file, data = packed(name, side, form)
        (root / file).write_bytes(data)
    return root


def write_zips(root: Path, form: str, compression: int) -> Path:
    """Write zips as the site ships them: one of the training batches, another of val_data."""
    root.mkdir()
    for kind in ("train", "val"):
        with zipfile.ZipFile(root / f"Imagenet32_{kind}.zip", "w", compression) as archive:
            for name in COUNTS:
                if name.startswith(kind):
                    file, data = packed(name, 32, form)
                    archive.writestr(f"Imagenet32_{kind}/{file}", data)
    return root


def check(path: Path, side: int = 32) -> None:
    source = imagenet32(path)
    assert source.parameters["side"] == side and source.name == "imagenet32"
    expected = {}
    for split in source.splits:
        contents = [batch(name, side) for name in COUNTS if name.startswith(split)]
        rows = np.concatenate([np.asarray(content["data"]) for content in contents])
        labels = np.concatenate([np.asarray(content["labels"]) for content in contents]) - 1
        expected[split] = images(rows, side), labels.tolist()
    check_arrays(source, expected)


@pytest.mark.parametrize("form", ["npz", "npz compressed", "pickle 3", "pickle 4", "python2"])
def test_every_form_gives_the_same(tmp_path: Path, form: str) -> None:
    root = write(tmp_path / "batches", form)
    check(root)
    assert imagenet32(root).parameters == imagenet32(write(tmp_path / "npz", "npz")).parameters


@pytest.mark.parametrize("form", ["npz", "pickle 3"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_the_zips_of_the_site(tmp_path: Path, form: str, compression: int) -> None:
    root = write_zips(tmp_path / "zips", form, compression)
    check(root)
    only_val = imagenet32(root / "Imagenet32_val.zip")
    assert list(only_val.splits) == ["val"]
    # What is unpacked comes first.
    (root / "val_data").write_bytes(b"")
    with pytest.raises(ShardError, match=r"zips/val_data is damaged"):
        imagenet32(root)


def test_other_sizes(tmp_path: Path) -> None:
    check(write(tmp_path / "64", "pickle 3", side=64, names=("val_data",)), side=64)
    check(write(tmp_path / "16", "npz", side=16), side=16)


def test_the_built_set(tmp_path: Path) -> None:
    root = write(tmp_path / "batches", "pickle 3")
    made = build("imagenet32", tmp_path / "set", path=root, shard_size=400, processes=2)
    assert made.splits == {"train": sum(COUNTS.values()) - 12, "val": 12}
    content = batch("train_data_batch_10")
    first = sum(COUNTS.values()) - 12 - 1400
    for row in (0, 1399):
        sample = made.split("train").read(first + row)
        expected = images(np.asarray(content["data"]), 32)[row]
        assert np.array_equal(sample.image, expected)
        assert sample.label == np.asarray(content["labels"])[row] - 1


_MEASURE = """
import resource, sys
from pathlib import Path
from shards.building.sources.imagenet32 import imagenet32
rest = imagenet32(Path(sys.argv[1]).parent / "small")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
source = imagenet32(Path(sys.argv[1]))
items = source.splits["val"]
for start in (0, len(items) // 2, len(items) - 3):
    assert len(list(source.read(items.block(start, start + 3)))) == 3
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


@pytest.mark.parametrize("form", ["npz", "pickle"])
def test_a_batch_is_not_loaded(tmp_path: Path, form: str) -> None:
    """A batch of 160 MB, planned and read from, takes a small part of that."""
    for name, rows in (("small", 2), ("large", 160 * 1024 // 3)):
        (tmp_path / name).mkdir()
        content = {"data": np.zeros((rows, 3072), np.uint8), "labels": [1] * rows}
        if form == "npz":
            np.savez(tmp_path / name / "val_data.npz", **content)  # type: ignore[arg-type]
        else:
            (tmp_path / name / "val_data").write_bytes(pickle.dumps(content, 3))
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(tmp_path / "large")],
        capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    assert int(done.stdout) < 60, f"{done.stdout} MB"


def test_code_is_refused_by_name(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    attack = {**batch("val_data"), "more": Attack(os.system, f"touch {mark}")}
    (tmp_path / "val_data").write_bytes(pickle.dumps(attack))
    with pytest.raises(ShardError, match=r"val_data asks for \w+\.system, which no array"):
        imagenet32(tmp_path)
    (tmp_path / "val_data").unlink()
    objects = np.array([Attack(os.system, f"touch {mark}")])
    np.savez(tmp_path / "val_data.npz", data=batch("val_data")["data"], labels=objects)
    with pytest.raises(ShardError, match=r"val_data.npz is not a batch .*allow_pickle=False"):
        imagenet32(tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize("form", ["npz", "npz compressed", "pickle 3", "python2"])
def test_a_truncated_batch_is_named(tmp_path: Path, form: str) -> None:
    root = write(tmp_path / "batches", form)
    file = next(root.glob("train_data_batch_10*"))
    whole = file.read_bytes()
    for size in (0, 7, len(whole) // 2, len(whole) - 2):
        file.write_bytes(whole[:size])
        with pytest.raises(ShardError, match=r"batches/train_data_batch_10.*download it again"):
            imagenet32(root)


@pytest.mark.parametrize("form", ["npz", "npz compressed"])
def test_a_flipped_bit_in_an_npz_is_found(tmp_path: Path, form: str) -> None:
    root = write(tmp_path / "batches", form)
    file = root / "train_data_batch_10.npz"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    source = imagenet32(root)
    items = source.splits["train"]
    with pytest.raises(ShardError, match=r"train_data_batch_10.npz is damaged"):
        for start in range(0, len(items), 40):
            list(source.read(items.block(start, min(start + 40, len(items)))))


def test_wrong_layouts_are_named(tmp_path: Path) -> None:
    root = write(tmp_path / "batches", "npz")
    (root / "train_data_batch_7.npz").rename(tmp_path / "train_data_batch_7.npz")
    with pytest.raises(ShardError, match=r"batches lacks train_data_batch_7: put all 10 batches"):
        imagenet32(root)
    write(root, "pickle 3", names=("train_data_batch_7", "val_data"))
    with pytest.raises(ShardError, match=r"val_data and .*val_data.npz are the same batch"):
        imagenet32(root)
    write(root, "npz", side=16, names=("val_data",))
    (root / "val_data").unlink()
    with pytest.raises(ShardError, match="hold images of different sizes"):
        imagenet32(root)
    for content, message in [
        ({"data": np.zeros((2, 3072), np.uint8)}, "labels"),
        ({"data": np.zeros((2, 3000), np.uint8), "labels": [1, 2]}, "3000 bytes are no square"),
        ({"data": np.zeros((2, 3072)), "labels": [1, 2]}, "float64 of the shape"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 2]}, "its labels are 0 to 2"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}, "labels of shape"),
    ]:
        np.savez(root / "val_data.npz", **content)  # type: ignore[arg-type]
        with pytest.raises(ShardError, match=f"val_data.npz is not a batch .*{message}"):
            imagenet32(root)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ShardError, match="empty holds no train_data_batch_1 or val_data"):
        imagenet32(tmp_path / "empty")
    with pytest.raises(ShardError, match="imagenet32 needs the path"):
        imagenet32(None)
