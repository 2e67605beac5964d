"""Building: photos, folders, reproducible bytes, nothing overwritten, nothing half made."""

from __future__ import annotations

import filecmp
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset
from PIL import Image

from shards import open_set
from shards.build import build
from shards.errors import ShardError
from shards.sources import photos as photos_module
from shards.sources.photos import LEAST_DEVIATION, PHOTOGRAPHS, photos


def same_files(a: Path, b: Path) -> bool:
    names = sorted(p.name for p in a.iterdir())
    assert names == sorted(p.name for p in b.iterdir())
    return not any(filecmp.cmpfiles(a, b, names, shallow=False)[1:])


def test_photos(built: Path) -> None:
    made = open_set(built)
    table = pq.read_table(built / "index.parquet").to_pylist()
    assert sum(made.splits.values()) == len(table)
    for row in table:
        assert row["source"] in PHOTOGRAPHS[row["split"]]
        assert row["key"].startswith(Path(row["source"]).stem)
    for sample in made.split("test").read_many(np.arange(10)):
        assert sample.image.shape == (32, 32, 3) and sample.image.dtype == np.uint8
        assert sample.image.mean(axis=2).std() >= LEAST_DEVIATION
        name, reduction, y, x = sample.key.rsplit("-", 3)
        whole = photos_module._reduced(f"{name}.png", int(reduction[1:]))
        corner = int(x[1:]), int(y[1:])
        crop = whole.crop((*corner, corner[0] + 32, corner[1] + 32))
        assert np.array_equal(sample.image, np.asarray(crop))


def test_the_default_photo_set_is_large_enough() -> None:
    """Counts of crops before and after the near-constant ones are dropped, without encoding."""
    counts = {
        split: sum(
            np.asarray(
                photos_module._reduced(c.path, c.reduction).crop((c.x, c.y, c.x + 64, c.y + 64)),
                dtype=np.float64,
            ).mean(axis=2).std() >= LEAST_DEVIATION
            for c in crops
        )
        for split, crops in photos(None).splits.items()
    }  # fmt: skip
    assert counts == {"train": 5257, "test": 922}


def test_the_two_views_of_one_scene_share_a_split() -> None:
    assert {"motorcycle_left.png", "motorcycle_right.png"} <= set(PHOTOGRAPHS["train"])
    assert not set(PHOTOGRAPHS["train"]) & set(PHOTOGRAPHS["test"])


def test_rebuilding_gives_the_same_bytes(built: Path, tmp_path: Path) -> None:
    again = build("photos", tmp_path / "photos", size=32, shard_size=20, limit=70)
    assert same_files(built, again.path)


def test_webdataset_reads_what_we_write(built: Path) -> None:
    made = open_set(built)
    ours = made.split("train")
    urls = [str(built / s.name) for s in made.info.splits["train"].shards]
    assert len(urls) > 1
    theirs = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8"))
    assert len(theirs) == len(ours)
    for row, sample in enumerate(theirs):
        assert sample["__key__"] == ours.key(row)
        assert np.array_equal(sample["png"], ours.read(row).image)


def test_an_existing_set_is_returned_untouched_or_refused(photo_set: Path) -> None:
    before = {p.name: (p.stat().st_mtime_ns, p.stat().st_ino) for p in photo_set.iterdir()}
    build("photos", photo_set, size=32, shard_size=20, limit=70)
    with pytest.raises(
        ShardError, match=r"photos is already a shard set with limit = 70 \(asked: 60"
    ):
        build("photos", photo_set, size=32, shard_size=20, limit=60)
    assert before == {p.name: (p.stat().st_mtime_ns, p.stat().st_ino) for p in photo_set.iterdir()}
    next(photo_set.glob("train-*.tar")).write_bytes(b"")
    with pytest.raises(ShardError, match="another size than when it was built"):
        build("photos", photo_set, size=32, shard_size=20, limit=70)


def test_other_things_are_not_overwritten(tmp_path: Path, images: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(ShardError, match="mine exists and is no shard set"):
        build("folder", tmp_path / "mine", path=images)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_killed_build_leaves_no_half_set(tmp_path: Path) -> None:
    """SIGKILL in the middle: nothing under the final name, and the next build clears the rest."""
    script = (
        "from shards.build import build\n"
        "build('photos', 'photos', size=32, shard_size=5,"
        " progress=lambda split, done, total: print(done, flush=True))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    child = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    while int(child.stdout.readline()) < 50:
        pass
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    left = list(tmp_path.iterdir())
    assert len(left) == 1 and left[0].name.startswith(".photos.building-")
    assert list(left[0].glob("*.tar"))
    os.utime(left[0], (0, 0))  # as if an hour had passed
    build("photos", tmp_path / "photos", size=32, limit=5)
    assert [p.name for p in tmp_path.iterdir()] == ["photos"]


def test_folder_keeps_bytes_and_labels(images: Path, tmp_path: Path) -> None:
    made = build("folder", tmp_path / "set", path=images, shard_size=5, test_fraction=0.25)
    assert made.splits == {"train": 10, "test": 3}
    assert made.info.classes == ["cats", "dogs"]
    table = pq.read_table(made.path / "index.parquet").to_pylist()
    for row in table:
        original = (images / row["source"]).read_bytes()
        stored = (made.path / row["shard"]).read_bytes()[row["image_offset"] :][: row["image_size"]]
        assert stored == original
        folder = row["source"].split("/")[0]
        assert row["label"] == {"cats": 0, "dogs": 1}.get(folder)
        assert (row["width"], row["height"]) == Image.open(images / row["source"]).size
    assert {row["key"] for row in table} >= {"loose_v2", "cats/a01", "dogs/a00"}
    split = made.split("train")
    sample = split.read(0)
    source = next(r["source"] for r in table if r["key"] == sample.key)
    assert np.array_equal(sample.image, np.asarray(Image.open(images / source).convert("RGB")))


def test_folder_resizes_and_crops(images: Path, tmp_path: Path) -> None:
    made = build("folder", tmp_path / "set", path=images, size=8, test_fraction=0)
    split = made.split("train")
    row = next(r for r in range(len(split)) if split.key(r) == "dogs/a00")
    whole = Image.open(images / "dogs" / "a00.png").convert("RGB")  # 30 x 20
    expected = whole.resize((12, 8), Image.Resampling.BILINEAR).crop((2, 0, 10, 8))
    assert np.array_equal(split.read(row).image, np.asarray(expected))
    assert {split.read(r).image.shape for r in range(len(split))} == {(8, 8, 3)}


def test_folder_with_its_own_splits(images: Path, tmp_path: Path) -> None:
    (images / "loose.v2.webp").unlink()
    root = tmp_path / "own"
    for split in ("train", "test"):
        (root / split).parent.mkdir(exist_ok=True)
        (images if split == "test" else images.with_name("copy")).mkdir(exist_ok=True)
    (images / "cats").rename(images.with_name("copy") / "cats")
    images.with_name("copy").rename(root / "train")
    images.rename(root / "test")
    made = build("folder", tmp_path / "set", path=root)
    assert made.splits == {"test": 6, "train": 6}
    assert made.info.classes == ["cats", "dogs"]
    (root / "stray.png").write_bytes(b"")
    with pytest.raises(ShardError, match=r"stray.png is in none of them"):
        build("folder", tmp_path / "set2", path=root)


def test_the_draw_depends_on_the_seed_alone(images: Path, tmp_path: Path) -> None:
    def test_keys(name: str, seed: int) -> set[str]:
        made = build("folder", tmp_path / name, path=images, test_fraction=0.4, seed=seed)
        split = made.split("test")
        return {split.key(row) for row in range(len(split))}

    assert test_keys("a", 0) == test_keys("b", 0) != test_keys("c", 1)


def test_a_file_that_is_no_image_is_named(images: Path, tmp_path: Path) -> None:
    (images / "cats" / "notes.txt").write_text("not a cat")
    whole = (images / "dogs" / "a00.png").read_bytes()
    (images / "dogs" / "a00.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ShardError, match=r"cats/notes.txt is not an image .*--on-error skip"):
        build("folder", tmp_path / "set", path=images)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images"]
    made = build("folder", tmp_path / "set", path=images, on_error="skip")
    assert sum(made.splits.values()) == 12
    assert sorted(s.path for s in made.info.skipped) == ["cats/notes.txt", "dogs/a00.png"]


def test_keys_never_collide(tmp_path: Path) -> None:
    root = tmp_path / "same"
    root.mkdir()
    for i, name in enumerate(("a.png", "a.bmp", "a.b.png", "a_b.png")):
        Image.fromarray(np.full((4, 4, 3), i, np.uint8)).save(root / name)
    split = build("folder", tmp_path / "set", path=root, test_fraction=0).split("train")
    found = {split.key(row): int(split.read(row).image[0, 0, 0]) for row in range(4)}
    assert found == {"a_b": 2, "a": 1, "a~2": 0, "a_b~2": 3}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "celeba"}, "no source 'celeba': use one of photos, folder"),
        ({"source": "folder"}, "needs the path"),
        ({"source": "folder", "path": "nowhere"}, "no folder nowhere"),
        ({"source": "photos", "path": "x"}, "takes no path"),
        ({"source": "photos", "size": 4096}, "8 to 256 pixels"),
        ({"source": "photos", "shard_size": 0}, "at least 1"),
    ],
)
def test_bad_arguments(arguments: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=message):
        build(arguments.pop("source"), tmp_path / "set", **arguments)
    assert not list(tmp_path.iterdir())


def test_missing_sets_and_splits_say_what_there_is(built: Path) -> None:
    with pytest.raises(ShardError, match=r"there is no shard set .*nope; .* holds photos"):
        open_set(built.parent / "nope")
    with pytest.raises(ShardError, match=r"no split 'val': it has train \(\d+ samples\), test"):
        open_set(built).split("val")
    with pytest.raises(ShardError, match=r"is not a shard set"):
        open_set(built.parent)
