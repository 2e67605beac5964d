"""Any pair of folders, images and maps of their pixels; names of classes; COCO-Stuff."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from gencomp.cli import main
from shards import open_set
from shards.building.build import build
from shards.building.sources.class_names import class_names
from shards.building.sources.coco_stuff import coco_stuff
from shards.building.sources.folder import folder
from shards.errors import ShardError
from shards.reading.order import EpochOrder
from shards.reading.stream import training_batches
from shards.reading.transforms import Transforms
from tests.shards.building.sources.blocks import samples

NAMES = ["a.jpg", "b.png", "deeper/a.jpg", "deeper/c.d.jpg"]


def png(ids: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(ids).save(stream, "PNG")
    return stream.getvalue()


def ids(
    seed: int, most: int, dtype: npt.DTypeLike = np.uint8, shape: tuple[int, int] = (40, 56)
) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, most + 1, (5, 7))
    coarse[0, 0] = most
    return coarse.repeat(8, 0).repeat(8, 1)[: shape[0], : shape[1]].astype(dtype)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Images, labels 0 to 4 and instances up to 4012 with the same stems."""
    for seed, name in enumerate(NAMES):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 56, 3), dtype=np.uint8)
        stem = name.rpartition(".")[0]
        for kind in ("images", "labels", "instances"):
            (tmp_path / kind / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "images" / name)
        (tmp_path / "labels" / f"{stem}.png").write_bytes(png(ids(seed, 4)))
        (tmp_path / "instances" / f"{stem}.png").write_bytes(png(ids(seed, 4012, np.uint16)))
    (tmp_path / "names.txt").write_text("road\nsky\nperson\ncar\nvoid\n\n")
    return tmp_path


def both(root: Path) -> list[str]:
    return [f"label={root / 'labels'}", f"instance={root / 'instances'}"]


def test_maps_are_found_by_their_stems(root: Path) -> None:
    source = folder(root / "images", maps=both(root), class_names=str(root / "names.txt"))
    assert source.classes == ["road", "sky", "person", "car", "void"]
    found = {sample.key: sample for split in samples(source).values() for sample in split}
    assert sorted(found) == ["a", "b", "deeper/a", "deeper/c_d"]
    for seed, key in enumerate(["a", "b", "deeper/a", "deeper/c_d"]):
        assert found[key].members["label.png"] == png(ids(seed, 4))
        assert found[key].members["instance.png"] == png(ids(seed, 4012, np.uint16))
        assert found[key].label is None


def test_a_set_from_the_command_line_brings_ids_through_every_transform(root: Path) -> None:
    words = [word for pair in both(root) for word in ("--maps", pair)]
    out = root / "set"
    command = ["shards", "build", "folder", str(root / "images"), *words]
    names = ["--class-names", str(root / "names.txt"), "--test-fraction", "0"]
    assert main([*command, *names, "--out", str(out), "--processes", "1"]) in (0, None)
    opened = open_set(out)
    assert opened.info.classes == ["road", "sky", "person", "car", "void"]
    assert opened.info.maps == ["label.png", "instance.png"]
    split = opened.split("train")
    order = EpochOrder(split.key_hash, 0, len(split))
    transforms = Transforms(resize=(29, 41), crop=(17, 23), flip=True)
    stream = training_batches(
        split, order, 4, 0, 1, 0, transforms=transforms, maps=["label", "instance"]
    )
    batch = next(stream)
    stream.close()
    for name in ("label", "instance"):
        for row, seen in zip(batch.rows.tolist(), batch.maps[name], strict=True):
            assert set(np.unique(seen)) <= set(np.unique(split.maps(row, [name])[name]))


@pytest.mark.parametrize("size", ["24", "20x48"])
def test_stored_sizes_keep_ids(root: Path, size: str) -> None:
    source = folder(root / "images", size=size, maps=both(root))
    for sample in (s for split in samples(source).values() for s in split):
        for member, most in (("label.png", 4), ("instance.png", 4012)):
            with Image.open(io.BytesIO(sample.members[member])) as image:
                stored = np.asarray(image)
            assert stored.shape == (sample.height, sample.width)
            seeds = range(len(NAMES))
            assert any(
                set(np.unique(stored)) <= set(np.unique(ids(s, most, stored.dtype))) for s in seeds
            )


def test_splits_and_archives(root: Path) -> None:
    for kind in ("images", "labels"):
        for split in ("train", "val"):
            (root / "two" / kind / split).mkdir(parents=True)
            for file in (root / kind).glob("*.*"):
                (root / "two" / kind / split / file.name).write_bytes(file.read_bytes())
        with zipfile.ZipFile(root / f"{kind}.zip", "w") as archive:
            for file in sorted((root / "two" / kind).rglob("*.*")):
                archive.write(file, f"{kind}/{file.relative_to(root / 'two' / kind)}")
    plain = folder(root / "two" / "images", maps=[f"label={root / 'two' / 'labels'}"])
    zipped = folder(root / "images.zip", maps=[f"label={root / 'labels.zip'}"])
    content = [
        {split: [(s.key, s.members) for s in found] for split, found in samples(source).items()}
        for source in (plain, zipped)
    ]
    assert content[0] == content[1]
    assert list(content[0]) == ["train", "val"]


def test_maps_that_do_not_fit_are_named(root: Path) -> None:
    images, labels = root / "images", root / "labels"
    maps = [f"label={labels}"]
    for words, sentence in (
        (["label"], "not NAME=PATH"),
        (["Label=x"], "not NAME=PATH"),
        ([*maps, *maps], "named twice"),
    ):
        with pytest.raises(ShardError, match=sentence):
            folder(images, maps=words)
    with pytest.raises(ShardError, match="give --maps"):
        folder(images, class_names="cityscapes")
    with pytest.raises(ShardError, match="map 'label'"):
        folder(images, maps=[f"instance={labels}"], class_names="cityscapes")
    (root / "names.txt").write_text("road\nsky")
    few = folder(images, maps=maps, class_names=str(root / "names.txt"))
    with pytest.raises(ShardError, match="has the id 4, but only 0 to 1 have class names"):
        build(few.name, root / "out", path=images, options={
            "maps": maps, "class_names": str(root / "names.txt"),
        }, processes=1)  # fmt: skip
    (labels / "a.png").write_bytes(png(np.zeros((3, 4), np.uint8)))
    with pytest.raises(ShardError, match="has 4x3 pixels and its image 56x40"):
        build("folder", root / "out2", path=images, options={"maps": maps}, processes=1)
    (labels / "a.tif").write_bytes(b"")
    with pytest.raises(ShardError, match="one of them is enough"):
        folder(images, maps=maps)
    (labels / "a.tif").unlink()
    (labels / "b.png").unlink()
    with pytest.raises(ShardError, match=r"lacks the label map of b.png: it must be named b.png"):
        build("folder", root / "out3", path=images, options={"maps": maps}, processes=1)


def test_stray_files_are_left_out_and_named(root: Path) -> None:
    images, labels = root / "images", root / "labels"
    (images / "Thumbs.db").write_bytes(b"no image")
    (labels / "Thumbs.db").write_bytes(b"no map")
    (labels / "a.xml").write_bytes(b"no map")
    (labels / "b.png").unlink()
    options = {"maps": [f"label={labels}"], "test_fraction": 0}
    built = build(
        "folder", root / "out", path=images, options=options, on_error="skip", processes=1
    )
    split = built.split("train")
    assert [split.key(row) for row in range(len(split))] == ["a", "deeper/a", "deeper/c_d"]
    assert [skipped.path for skipped in built.info.skipped] == ["b.png", "Thumbs.db"]


def test_names_of_classes(tmp_path: Path) -> None:
    assert len(class_names("cityscapes")) == 34 and class_names("cityscapes")[26] == "car"
    ade = class_names("ade20k")
    assert len(ade) == len(set(ade)) == 151
    assert (ade[0], ade[1], ade[13], ade[150]) == ("other", "wall", "person", "flag")
    file = tmp_path / "names.txt"
    for text, sentence in (
        ("", "has 0 names"),
        ("a\n\nb", "line 2"),
        ("a\nb\na", "names 'a' twice"),
    ):
        file.write_text(text)
        with pytest.raises(ShardError, match=sentence):
            class_names(str(file))
    with pytest.raises(ShardError, match="one name a line, or one of cityscapes, ade20k"):
        class_names(str(tmp_path / "none"))


class TestCocoStuff:
    @pytest.fixture
    def coco(self, tmp_path: Path) -> Path:
        for seed, (part, key) in enumerate(
            [("train2017", "000000000009"), ("train2017", "000000000025"), ("val2017", "139")]
        ):
            for folder_ in (part, f"stuffthingmaps_trainval2017/{part}"):
                (tmp_path / folder_).mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(seed).integers(0, 256, (40, 56, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / part / f"{key}.jpg")
            labels = ids(seed, 181)
            labels[:3] = 255
            path = tmp_path / "stuffthingmaps_trainval2017" / part / f"{key}.png"
            path.write_bytes(png(labels))
        rows = ["0: unlabeled", "1: person", *(f"{n}: thing {n}" for n in range(2, 183))]
        (tmp_path / "labels.txt").write_text("\n".join(rows) + "\n")
        return tmp_path

    def test_published_files(self, coco: Path) -> None:
        source = coco_stuff(coco)
        assert len(source.classes) == 256
        assert (source.classes[0], source.classes[181]) == ("person", "thing 182")
        assert source.classes[255] == "unlabeled"
        found = samples(source)
        assert {split: [s.key for s in read] for split, read in found.items()} == {
            "train": ["000000000009", "000000000025"],
            "val": ["139"],
        }
        part = coco / "stuffthingmaps_trainval2017"
        assert found["val"][0].members["label.png"] == (part / "val2017/139.png").read_bytes()

    def test_zips_give_the_same(self, coco: Path, tmp_path: Path) -> None:
        zips = tmp_path / "zips"
        zips.mkdir()
        for name in ("train2017", "val2017", "stuffthingmaps_trainval2017"):
            with zipfile.ZipFile(zips / f"{name}.zip", "w") as archive:
                inside = coco if name.endswith("2017") and "stuff" not in name else coco / name
                for file in sorted((coco / name).rglob("*.*")):
                    archive.write(file, file.relative_to(inside))
        (zips / "labels.txt").write_bytes((coco / "labels.txt").read_bytes())
        read, zipped = samples(coco_stuff(coco)), samples(coco_stuff(zips))
        for split in ("train", "val"):
            assert [(s.key, s.members) for s in read[split]] == [
                (s.key, s.members) for s in zipped[split]
            ]

    def test_what_is_missing_is_named(self, coco: Path) -> None:
        with pytest.raises(ShardError, match="coco_stuff needs the path"):
            coco_stuff(None)
        (coco / "stuffthingmaps_trainval2017" / "val2017" / "139.png").unlink()
        with pytest.raises(ShardError, match=r"lacks the label map val2017/139.png"):
            coco_stuff(coco)
        (coco / "val2017" / "139.jpg").unlink()
        (coco / "labels.txt").write_text("1: person")
        with pytest.raises(ShardError, match="does not name the labels 0 to 182"):
            coco_stuff(coco)
        (coco / "labels.txt").unlink()
        with pytest.raises(ShardError, match=r"labels.txt is missing"):
            coco_stuff(coco)
