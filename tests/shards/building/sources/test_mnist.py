"""MNIST and Fashion-MNIST from idx files, whole, compressed, damaged."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.building.build import build
from shards.building.sources.mnist import fashion_mnist, mnist
from shards.errors import ShardError
from tests.shards.building.sources.blocks import samples
from tests.shards.building.sources.reading import check_arrays, pixels

COUNTS = {"train": 23, "t10k": 11}


def idx(array: np.ndarray) -> bytes:
    """The original format: magic, lengths in big-endian order, bytes."""
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return head + array.astype(np.uint8).tobytes()


def content(prefix: str) -> tuple[np.ndarray, list[int]]:
    rng = np.random.default_rng(COUNTS[prefix])
    images = rng.integers(0, 256, (COUNTS[prefix], 28, 28), dtype=np.uint8)
    return images, rng.integers(0, 10, COUNTS[prefix]).tolist()


EXPECTED = {"train": content("train"), "test": content("t10k")}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The four files as the site ships them."""
    root = tmp_path / "mnist"
    root.mkdir()
    for prefix in COUNTS:
        images, labels = content(prefix)
        (root / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images), mtime=0))
        (root / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(
            gzip.compress(idx(np.array(labels)), mtime=0)
        )
    return root


def test_pixels_labels_and_order(files: Path) -> None:
    source = mnist(files)
    assert source.classes == [str(digit) for digit in range(10)]
    assert source.parameters["images"] == {"train": 23, "test": 11}
    check_arrays(source, EXPECTED)
    assert samples(source)["test"][0].source == "t10k-images-idx3-ubyte"


def test_what_torchvision_unpacked_is_the_same_set(files: Path, tmp_path: Path) -> None:
    raw = tmp_path / "root" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for file in files.iterdir():
        (raw / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
        shutil.copy(file, raw)  # torchvision leaves both
    (unpacked, packed) = fashion_mnist(tmp_path / "root"), fashion_mnist(files)
    assert unpacked.parameters == packed.parameters
    assert samples(unpacked)["train"] == samples(packed)["train"]
    assert packed.classes[0] == "T-shirt/top" and packed.classes[9] == "Ankle boot"


def test_the_dots_of_other_copies(files: Path) -> None:
    for file in list(files.iterdir()):
        unpacked = file.stem.replace("-idx", ".idx")
        (files / unpacked).write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()
    check_arrays(mnist(files), EXPECTED)


def test_another_size_and_storage(files: Path) -> None:
    source = mnist(files, size="14", storage="webp")
    assert source.transform.size == (14, 14) and source.transform.storage == "webp"
    expected = Image.fromarray(content("t10k")[0][0]).resize((14, 14), Image.Resampling.BILINEAR)
    found = pixels(samples(source)["test"][0])
    assert np.array_equal(found[..., 0], np.asarray(expected))


def test_the_built_set(files: Path, tmp_path: Path) -> None:
    made = build("mnist", tmp_path / "set", path=files, shard_size=5, processes=1)
    assert made.splits == {"train": 23, "test": 11}
    images, labels = content("train")
    split = made.split("train")
    for row in range(23):
        sample = split.read(row)
        assert np.array_equal(sample.image, np.repeat(images[row][..., None], 3, axis=2))
        assert sample.label == labels[row]
    assert made.info.classes == mnist(files).classes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[: len(data) // 2], r"train-images.*gz cannot be read .*download it"),
        (lambda data: data[:-6] + bytes([data[-6] ^ 1]) + data[-5:], "cannot be read .*CRC"),
        (lambda data: b"not gzip" + data, r"cannot be read .*[Nn]ot a gzipped"),
        (
            lambda data: gzip.compress(b"\0\0\x0d\x03" + gzip.decompress(data)[4:]),
            r"no.* such an idx file .*starts with 00 00 0d 03, not 00 00 08 03",
        ),
        (lambda data: gzip.compress(b"\0\0\x08\x03\0"), "is not such an idx file"),
        (
            lambda data: gzip.compress(gzip.decompress(data)[:-1]),
            "should hold 23 x 28 x 28 bytes and holds 18031",
        ),
        (lambda data: gzip.compress(gzip.decompress(data) + b"x"), "28 bytes and holds 18033"),
    ],
)
def test_damage_is_named(files: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    file = files / "train-images-idx3-ubyte.gz"
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(ShardError, match=message):
        mnist(files)


def test_wrong_layouts(files: Path, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="mnist needs the path"):
        mnist(None)
    with pytest.raises(ShardError, match=r"there is no folder .*nowhere"):
        mnist(tmp_path / "nowhere")
    with pytest.raises(ShardError, match="has no original bytes"):
        mnist(files, storage="original")
    labels = files / "t10k-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(idx(np.zeros(10))))
    with pytest.raises(ShardError, match=r"t10k-labels.* does not belong to .*t10k-images"):
        mnist(files)
    labels.write_bytes(gzip.compress(idx(np.full(11, 10))))
    with pytest.raises(ShardError, match="its labels are 10 to 10"):
        mnist(files)
    labels.unlink()
    with pytest.raises(ShardError, match=r"mnist lacks t10k-labels-idx1-ubyte.gz"):
        mnist(files)
