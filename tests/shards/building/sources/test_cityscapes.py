"""Cityscapes from its zips and folders: images, label and instance maps, splits, damage."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.building.build import build
from shards.building.sources.cityscapes import CLASSES, cityscapes
from shards.errors import ShardError
from shards.info import Skipped
from shards.reading import decode
from tests.shards.building.sources.blocks import outcomes, samples

HEIGHT, WIDTH = 32, 64  # 1024 and 2048 in the data set
FRAMES = {
    "train": ["aachen_000000_000019", "aachen_000001_000019", "zurich_000007_000019"],
    "val": ["frankfurt_000000_000294"],
    "test": ["berlin_000000_000019"],
}


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def scene(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image, label ids 0 to 33, and instance ids: cars and persons are numbered."""
    image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    labels = rng.integers(0, 34, (HEIGHT, WIDTH), dtype=np.uint8)
    numbered = np.isin(labels, [24, 26])
    instances = np.where(numbered, labels.astype(np.uint16) * 1000 + 7, labels).astype(np.uint16)
    return image, labels, instances


@pytest.fixture(scope="module")
def scenes() -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    return {frame: scene(rng) for frames in FRAMES.values() for frame in frames}


@pytest.fixture(scope="module")
def files(scenes: dict) -> dict[str, bytes]:
    """Both packages' files by their names in the zips."""
    found = {}
    for split, frames in FRAMES.items():
        for frame in frames:
            place = f"{split}/{frame.split('_')[0]}/{frame}"
            image, labels, instances = scenes[frame]
            found[f"leftImg8bit/{place}_leftImg8bit.png"] = png(image)
            found[f"gtFine/{place}_gtFine_labelIds.png"] = png(labels)
            found[f"gtFine/{place}_gtFine_instanceIds.png"] = png(instances)
            found[f"gtFine/{place}_gtFine_color.png"] = png(image)
            found[f"gtFine/{place}_gtFine_polygons.json"] = b"{}"
    return found


def zipped(root: Path, files: dict[str, bytes]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for part in ("leftImg8bit", "gtFine"):
        with zipfile.ZipFile(root / f"{part}_trainvaltest.zip", "w") as archive:
            archive.writestr("README", "text")
            archive.writestr("license.txt", "text")
            for name, data in files.items():
                if name.startswith(part):
                    archive.writestr(name, data)
    return root


def unpacked(root: Path, files: dict[str, bytes], above: bool = False) -> Path:
    for name, data in files.items():
        part = f"{name.split('/')[0]}_trainvaltest" if above else ""
        (root / part / name).parent.mkdir(parents=True, exist_ok=True)
        (root / part / name).write_bytes(data)
    return root


def test_native_size_keeps_every_byte(tmp_path: Path, files: dict, scenes: dict) -> None:
    source = cityscapes(zipped(tmp_path, files))
    assert source.transform.size is None and source.transform.storage == "original"
    assert source.classes == CLASSES and len(CLASSES) == 34
    assert (CLASSES[7], CLASSES[26], CLASSES[33]) == ("road", "car", "bicycle")
    read = samples(source)
    assert {split: [s.key for s in found] for split, found in read.items()} == FRAMES
    for split, found in read.items():
        for sample in found:
            place = f"{split}/{sample.key.split('_')[0]}/{sample.key}"
            assert list(sample.members.items()) == [
                ("png", files[f"leftImg8bit/{place}_leftImg8bit.png"]),
                ("label.png", files[f"gtFine/{place}_gtFine_labelIds.png"]),
                ("instance.png", files[f"gtFine/{place}_gtFine_instanceIds.png"]),
            ]
            assert (sample.width, sample.height) == (WIDTH, HEIGHT)


def test_half_size_takes_maps_by_nearest(tmp_path: Path, files: dict, scenes: dict) -> None:
    source = cityscapes(zipped(tmp_path, files), size=f"{HEIGHT // 2}x{WIDTH // 2}")
    assert source.transform.size == (HEIGHT // 2, WIDTH // 2)
    assert source.transform.storage == "png"
    for sample in (s for found in samples(source).values() for s in found):
        image, labels, instances = scenes[sample.key]
        half = Image.fromarray(image).resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(decode.decode(sample.members["png"]), np.asarray(half))
        for member, original in (("label.png", labels), ("instance.png", instances)):
            with Image.open(io.BytesIO(sample.members[member])) as small:
                np.testing.assert_array_equal(np.asarray(small), original[1::2, 1::2])


def test_every_layout_gives_the_same_samples(tmp_path: Path, files: dict) -> None:
    packages = zipped(tmp_path / "zips", files)
    folders = unpacked(tmp_path / "folders", files)
    deeper = unpacked(tmp_path / "deeper", files, above=True)
    mixed = zipped(tmp_path / "mixed", files)
    unpacked(mixed, {name: data for name, data in files.items() if name.startswith("gtFine")})
    (mixed / "gtFine_trainvaltest.zip").unlink()
    with zipfile.ZipFile(tmp_path / "both.zip", "w") as archive:
        for name, data in files.items():
            archive.writestr(f"cityscapes/{name}", data)

    def content(path: Path) -> list:
        return [s._replace(source="") for f in samples(cityscapes(path)).values() for s in f]

    expected = content(packages)
    for path in (
        packages / "leftImg8bit_trainvaltest.zip", folders, folders / "leftImg8bit", deeper, mixed,
        tmp_path / "both.zip",
    ):  # fmt: skip
        assert content(path) == expected, path


def test_maps_may_be_left_out(tmp_path: Path, files: dict) -> None:
    root = zipped(tmp_path, files)
    labelled = samples(cityscapes(root, instances=False), block_size=10)
    assert {tuple(s.members) for f in labelled.values() for s in f} == {("png", "label.png")}
    partly = {k: v for k, v in files.items() if "berlin_000000_000019_gtFine" not in k}
    with pytest.raises(ShardError, match=r"gtFine_trainvaltest\.zip lacks 2 of the maps of the im"):
        cityscapes(zipped(tmp_path / "partly", partly))
    (root / "gtFine_trainvaltest.zip").unlink()
    source = cityscapes(root, labels=False)
    assert source.classes == []
    assert {tuple(s.members) for f in samples(source).values() for s in f} == {("png",)}
    with pytest.raises(ShardError, match=r"^there are no maps .* such as test/berlin/.*: put gtF"):
        cityscapes(root)


def test_a_damaged_image_or_map_names_itself(tmp_path: Path, files: dict) -> None:
    broken = dict(files)
    image = "leftImg8bit/train/aachen/aachen_000001_000019_leftImg8bit.png"
    cut, colour, small = (
        f"gtFine/{place}_gtFine_{kind}.png"
        for place, kind in (
            ("val/frankfurt/frankfurt_000000_000294", "labelIds"),
            ("test/berlin/berlin_000000_000019", "labelIds"),
            ("train/zurich/zurich_000007_000019", "instanceIds"),
        )
    )
    broken[image] = files[image][:-40]
    broken[cut] = files[cut][:500]
    broken[colour] = files[image]
    broken[small] = png(np.zeros((HEIGHT // 2, WIDTH // 2), np.uint8))
    read = outcomes(cityscapes(zipped(tmp_path, broken)))
    reasons = {s.path: s.reason for f in read.values() for s in f if isinstance(s, Skipped)}
    assert len(reasons) == 4
    for name, message in (
        (image, "is not an image that can be read"),
        (cut, "is not an image that can be read"),
        (colour, "its mode is RGB, and a map of ids has one channel"),
        (small, "has 32x16 pixels and its image 64x32"),
    ):
        assert any(name in reason and message in reason for reason in reasons.values()), reasons


def test_wrong_layouts(tmp_path: Path, files: dict) -> None:
    with pytest.raises(ShardError, match=r"cityscapes needs the path of the folder that holds le"):
        cityscapes(None)
    with pytest.raises(ShardError, match=r"nowhere cannot be read: No such file"):
        cityscapes(tmp_path / "nowhere")
    with pytest.raises(ShardError, match=r"holds no images such as train/aachen/aachen_0.*: give"):
        cityscapes(tmp_path)
    root = zipped(tmp_path, files)
    with pytest.raises(ShardError, match=r"gtFine_trainvaltest\.zip holds no images such as "):
        cityscapes(root / "gtFine_trainvaltest.zip")


def test_a_set_is_built(tmp_path: Path, files: dict, scenes: dict) -> None:
    shards = build("cityscapes", tmp_path / "set", path=zipped(tmp_path, files), shard_size=2)
    assert shards.info.counts == {"train": 3, "val": 1, "test": 1}
    assert shards.info.maps == ["label.png", "instance.png"]
    for split, frames in FRAMES.items():
        for row, frame in enumerate(frames):
            image, labels, instances = scenes[frame]
            maps = shards.split(split).maps(row, ["label", "instance"])
            np.testing.assert_array_equal(shards.split(split).image(row), image)
            np.testing.assert_array_equal(maps["label"], labels)
            np.testing.assert_array_equal(maps["instance"], instances)
            assert (maps["label"].dtype, maps["instance"].dtype) == (np.uint8, np.uint16)
