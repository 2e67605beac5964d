"""ADE20K in the layout of the Scene Parsing Benchmark: maps, classes, geometry, damage."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.building.build import build
from shards.building.sources.ade20k import ade20k
from shards.errors import ShardError
from shards.info import Skipped
from shards.reading import decode
from tests.shards.building.sources.blocks import outcomes, samples

NAMES = ["wall", "building, edifice", "sky", "bed"]
SIZES = {  # (height, width)
    "training/ADE_train_00000001": (40, 60),
    "training/ADE_train_00000002": (64, 36),
    "training/ADE_train_00000003": (33, 33),
    "validation/ADE_val_00000001": (50, 31),
}
ROOT = "ADEChallengeData2016"


def jpeg(pixels: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", **options)
    return stream.getvalue()


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def where(height: int, width: int) -> np.ndarray:
    """A map that tells which row and column a pixel came from."""
    return (np.arange(height)[:, None] // 8 * 16 + np.arange(width) // 8).astype(np.uint8)


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    found = {
        "objectInfo150.txt": "Idx\tRatio\tTrain\tVal\tStuff\tName\n"
        "1\t0.1576\t11664\t1172\t1\twall\n2\t0.1072\t6046\t612\t1\tbuilding, edifice\n"
        "3\t0.0878\t8265\t796\t1\tsky\n4 \t0.0231\t1906\t199\t0\tbed \n",
        "sceneCategories.txt": "ADE_train_00000001 airport_terminal\n",
    }
    content = {name: text.encode() for name, text in found.items()}
    for name, size in SIZES.items():
        pixels = np.repeat(where(*size)[..., None], 3, axis=2) + rng.integers(0, 9, (*size, 3))
        content[f"images/{name}.jpg"] = jpeg(pixels.clip(0, 255).astype(np.uint8), quality=95)
        content[f"annotations/{name}.png"] = png(where(*size))
    return content


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(f"{ROOT}/{name}", data)
    return path


def test_files_are_kept_by_default(tmp_path: Path, files: dict[str, bytes]) -> None:
    source = ade20k(zipped(tmp_path / f"{ROOT}.zip", files))
    assert source.classes == ["other", *NAMES]
    assert source.transform.size is None and source.transform.storage == "original"
    read = samples(source)
    assert {split: len(found) for split, found in read.items()} == {"train": 3, "val": 1}
    for found, folder in zip(read.values(), ("training", "validation"), strict=True):
        for sample in found:
            name = f"{folder}/{sample.key}"
            assert list(sample.members.items()) == [
                ("jpg", files[f"images/{name}.jpg"]),
                ("label.png", files[f"annotations/{name}.png"]),
            ]
            assert (sample.height, sample.width) == SIZES[name]
            assert sample.label is None


def test_every_layout_gives_the_same_samples(tmp_path: Path, files: dict[str, bytes]) -> None:
    archive = zipped(tmp_path / "zip" / f"{ROOT}.zip", files)
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(tmp_path / "unpacked")

    def content(path: Path) -> list:
        return [s._replace(source="") for f in samples(ade20k(path)).values() for s in f]

    expected = content(archive)
    for path in (archive.parent, tmp_path / "unpacked", tmp_path / "unpacked" / ROOT):
        assert content(path) == expected, path


@pytest.mark.parametrize(("size", "shape"), [("32", (32, 32)), ("24x48", (24, 48))])
def test_maps_follow_images(
    tmp_path: Path, files: dict[str, bytes], size: str, shape: tuple[int, int]
) -> None:
    source = ade20k(zipped(tmp_path / f"{ROOT}.zip", files), size=size)
    for sample in (s for found in samples(source).values() for s in found):
        assert list(sample.members) == ["png", "label.png"]
        image = decode.decode(sample.members["png"])
        with Image.open(io.BytesIO(sample.members["label.png"])) as opened:
            labels = np.asarray(opened)
        assert image.shape[:2] == labels.shape == shape
        # The image shows its map with noise of 0 to 8; edges are blurred in the one alone.
        off = np.abs(image.astype(int).mean(axis=2) - 4 - labels)
        assert np.median(off) < 3


def test_damage_names_itself(tmp_path: Path, files: dict[str, bytes]) -> None:
    first, second, third, last = SIZES
    turned = Image.Exif()
    turned[0x0112] = 6
    broken = {
        **files,
        f"images/{first}.jpg": files[f"images/{first}.jpg"][:300],
        f"annotations/{second}.png": files[f"annotations/{first}.png"],
        f"images/{third}.jpg": jpeg(np.zeros((33, 33, 3), np.uint8), exif=turned),
        f"annotations/{last}.png": b"no image",
    }
    path = zipped(tmp_path / f"{ROOT}.zip", broken)
    read = outcomes(ade20k(path, size="24"))
    reasons = [s.reason for f in read.values() for s in f if isinstance(s, Skipped)]
    for reason, start, message in zip(
        reasons,
        (f"images/{first}.jpg", f"annotations/{second}.png", f"images/{third}.jpg",
         f"annotations/{last}.png"),
        ("is not an image that can be read", "has 60x40 pixels and its image 36x64",
         "its orientation tag turns it away from its maps", "(no PNG)"),
        strict=True,
    ):  # fmt: skip
        assert reason.startswith(f"{ROOT}/{start} in {path} ") and message in reason


def test_wrong_layouts(tmp_path: Path, files: dict[str, bytes]) -> None:
    with pytest.raises(
        ShardError, match=r"ade20k needs the path of ADEChallengeData2016\.zip, of "
    ):
        ade20k(None)
    with pytest.raises(ShardError, match=r"holds no images such as images/training/ADE_train_0000"):
        ade20k(tmp_path)
    lost = "annotations/training/ADE_train_00000002.png"
    for name, message in (
        (lost, rf"lacks 1 label maps, such as {ROOT}/{lost}"),
        ("objectInfo150.txt", r"lacks objectInfo150\.txt, the names of the classes"),
    ):
        part = {k: v for k, v in files.items() if k != name}
        with pytest.raises(ShardError, match=message):
            ade20k(zipped(tmp_path / name / f"{ROOT}.zip", part))
    table = files["objectInfo150.txt"].replace(b"2\t0.1072", b"7\t0.1072")
    with pytest.raises(
        ShardError, match=r"objectInfo150\.txt in .* is not a table of classes 1, 2"
    ):
        ade20k(zipped(tmp_path / "x" / f"{ROOT}.zip", {**files, "objectInfo150.txt": table}))


def test_a_set_is_built(tmp_path: Path, files: dict[str, bytes]) -> None:
    path = zipped(tmp_path / f"{ROOT}.zip", files)
    shards = build("ade20k", tmp_path / "set", path=path, options={"size": "24"})
    assert shards.info.counts == {"train": 3, "val": 1}
    assert shards.info.maps == ["label.png"] and shards.info.classes == ["other", *NAMES]
    # 31 wide, 50 high: scaled to 24 by 38, and the middle 24 rows are 7 to 30.
    labels = shards.split("val").maps(0, ["label"])["label"]
    rows = (2 * np.arange(7, 31) + 1) * 50 // 76
    columns = (2 * np.arange(24) + 1) * 31 // 48
    np.testing.assert_array_equal(labels, where(50, 31)[rows[:, None], columns])
