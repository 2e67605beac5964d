"""CIFAR-10 from its python batches: the archive, the folder, damage, and pickles that attack."""

from __future__ import annotations

import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from shards.building.build import build
from shards.building.sources import pickles
from shards.building.sources.cifar10 import cifar10
from shards.errors import ShardError
from tests.shards.building.sources.reading import check_arrays

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
BATCHES = {**{f"data_batch_{i}": 10 + i for i in range(1, 6)}, "test_batch": 9}


def batch(name: str) -> tuple[np.ndarray, list[int]]:
    """Planar rows uint8 [n, 3072], and labels."""
    rng = np.random.default_rng(BATCHES[name])
    rows = rng.integers(0, 256, (BATCHES[name], 3072), dtype=np.uint8)
    return rows, rng.integers(0, 10, BATCHES[name]).tolist()


def images(rows: np.ndarray) -> np.ndarray:
    """Row 0 of the red plane is the first 32 bytes of a row, and so on."""
    planes = [rows[:, 1024 * c : 1024 * (c + 1)].reshape(-1, 32, 32) for c in range(3)]
    return np.stack(planes, axis=-1)


def python2(value: object) -> bytes:
    """What Python 2's cPickle writes: 8-bit strings, arrays with such a string in them."""
    if isinstance(value, bytes):
        short = len(value) < 256
        head = b"U" + bytes([len(value)]) if short else b"T" + len(value).to_bytes(4, "little")
        return head + value
    if isinstance(value, int):
        return b"J" + value.to_bytes(4, "little", signed=True)
    if isinstance(value, list):
        return b"](" + b"".join(map(python2, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(python2(k) + python2(v) for k, v in value.items()) + b"u"
    assert isinstance(value, np.ndarray)
    kind = b"cnumpy\ndtype\n(" + python2(b"u1") + python2(0) + python2(1) + b"tR("
    kind += python2(3) + python2(b"|") + b"NNN" + python2(-1) * 2 + python2(0) + b"tb"
    shape = b"(" + b"".join(python2(n) for n in value.shape) + b"t"
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(" + python2(0) + b"t"
    made += python2(b"b") + b"tR("
    return made + python2(1) + shape + kind + b"\x89" + python2(value.tobytes()) + b"tb"


def write(root: Path) -> Path:
    """The folder as the archive unpacks it."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in BATCHES:
        rows, labels = batch(name)
        content = {b"batch_label": b"a batch", b"labels": labels, b"data": rows}
        (folder / name).write_bytes(b"\x80\x02" + python2(content) + b".")
    names: dict = {b"num_cases_per_batch": 10000, b"label_names": [n.encode() for n in NAMES]}
    (folder / "batches.meta").write_bytes(b"\x80\x02" + python2(names) + b".")
    (folder / "readme.html").write_text("<html>")
    return folder


def pack(folder: Path) -> Path:
    archive = folder.parent / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:  # in the order of the original, which is none
        for name in ("data_batch_4", "readme.html", "test_batch", "data_batch_3", "batches.meta",
                     "data_batch_2", "data_batch_5", "data_batch_1"):  # fmt: skip
            tar.add(folder / name, f"cifar-10-batches-py/{name}")
    return archive


def check(path: Path) -> None:
    source = cifar10(path)
    assert source.classes == NAMES
    train = [batch(f"data_batch_{i}") for i in range(1, 6)]
    rows = np.concatenate([rows for rows, _ in train])
    expected = {"train": (images(rows), [n for _, labels in train for n in labels])}
    rows, labels = batch("test_batch")
    check_arrays(source, {**expected, "test": (images(rows), labels)})


def test_numpy_reads_the_written_pickles_alike(tmp_path: Path) -> None:
    """The files of these tests are what `pickle` itself takes for CIFAR-10."""
    data = (write(tmp_path) / "data_batch_2").read_bytes()
    theirs, ours = pickle.loads(data, encoding="bytes"), pickles.load(data, "it")
    assert np.array_equal(theirs[b"data"], batch("data_batch_2")[0])
    assert np.array_equal(ours["data"].numpy(), theirs[b"data"])
    assert ours["labels"] == theirs[b"labels"] == batch("data_batch_2")[1]


def test_folder_archive_and_the_folder_of_either(tmp_path: Path) -> None:
    folder = write(tmp_path)
    check(folder)
    check(tmp_path)
    archive = pack(folder)
    check(archive)
    (tmp_path / "elsewhere").mkdir()
    archive.rename(tmp_path / "elsewhere" / archive.name)
    check(tmp_path / "elsewhere")


@pytest.mark.parametrize("protocol", [1, 2, 3, 4])
def test_pickles_of_python_3(tmp_path: Path, protocol: int) -> None:
    folder = write(tmp_path)
    for name in BATCHES:
        rows, labels = batch(name)
        data = pickle.dumps({"data": rows, "labels": labels}, protocol)
        (folder / name).write_bytes(data)
    check(folder)


def test_the_built_set(tmp_path: Path) -> None:
    made = build("cifar10", tmp_path / "set", path=pack(write(tmp_path)), shard_size=8, processes=1)
    assert made.splits == {"train": 65, "test": 9}
    sample = made.split("train").read(11)  # the first of the second batch
    rows, labels = batch("data_batch_2")
    assert np.array_equal(sample.image, images(rows)[0]) and sample.label == labels[0]


class Attack:
    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


def attacks(mark: Path) -> dict[str, object]:
    import builtins
    import os
    import subprocess

    return {
        "system": Attack(os.system, f"touch {mark}"),
        "eval": Attack(builtins.eval, f"open({str(mark)!r}, 'w')"),
        "Popen": Attack(subprocess.Popen, ["touch", str(mark)]),
        "getattr": Attack(getattr, "x", "upper"),
        "fromfile": Attack(np.fromfile, str(mark)),
    }


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", list(attacks(Path("mark"))))
def test_code_is_refused_by_name(tmp_path: Path, name: str, protocol: int) -> None:
    folder = write(tmp_path)
    mark = tmp_path / "mark"
    rows, labels = batch("data_batch_3")
    data = {"data": rows, "labels": labels, "more": [attacks(mark)[name]]}
    (folder / "data_batch_3").write_bytes(pickle.dumps(data, protocol))
    with pytest.raises(
        ShardError, match=rf"data_batch_3 in .* asks for \w+\.([\w.]*\.)?{name}, which no array"
    ):
        cifar10(folder)
    assert not mark.exists()


def test_memory_is_not_forged() -> None:
    """Objects whose addresses are in the file; an array that claims more than it holds."""
    forged = {"data": np.array([None, None])}
    with pytest.raises(ShardError, match="an array of the type 'O8'"):
        pickles.load(pickle.dumps(forged), "it")
    whole = pickle.dumps({"data": np.zeros((2, 3072), np.uint8)}, 3)
    assert whole.count(b"K\x02M\x00\x0c") == 1  # its shape
    with pytest.raises(ShardError, match=r"an array of shape \(3, 3072\) in 6144 bytes"):
        pickles.load(whole.replace(b"K\x02M\x00\x0c", b"K\x03M\x00\x0c"), "it")
    with pytest.raises(ShardError, match="Fortran"):
        pickles.load(pickle.dumps({"data": np.asfortranarray(np.zeros((4, 5)))}), "it")
    with pytest.raises(ShardError, match=r"it is damaged .*byte order"):
        pickles.load(pickle.dumps({"data": np.zeros(3)}, 3).replace(b"<", b"@"), "it")


def test_damage_and_wrong_layouts_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path)
    whole = (folder / "data_batch_5").read_bytes()
    for data in (b"", whole[:20], whole[: len(whole) // 2], b"\x80\x02]."):
        (folder / "data_batch_5").write_bytes(data)
        with pytest.raises(ShardError, match=r"data_batch_5 in .* is damaged or no pickle"):
            cifar10(folder)
    for content, message in [
        ({"labels": [1]}, "it has no rows of 3072 bytes"),
        ({"data": np.zeros((2, 3000), np.uint8), "labels": [1, 2]}, "it has no rows of 3072"),
        (
            {"data": np.zeros((2, 3072), np.uint8), "labels": [1]},
            r"2 images have labels of shape \(1,\)",
        ),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [1, 10]}, "its labels are 1 to 10"),
    ]:
        (folder / "data_batch_5").write_bytes(pickle.dumps(content))
        with pytest.raises(ShardError, match=f"data_batch_5 .* not a batch of CIFAR-10: {message}"):
            cifar10(folder)
    (folder / "data_batch_5").unlink()
    with pytest.raises(ShardError, match=r"lacks .*data_batch_5: unpack or download"):
        cifar10(tmp_path)
    (empty := tmp_path / "empty").mkdir()
    with pytest.raises(ShardError, match=r"holds no data_batch_1: give the path of cifar-10-py"):
        cifar10(empty)
