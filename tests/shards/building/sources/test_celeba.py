"""CelebA from the site's zip and lists, from folders, and from Kaggle's copy."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.building.build import build
from shards.building.sources.celeba import celeba
from shards.errors import ShardError
from shards.info import Skipped
from shards.reading import decode
from tests.shards.building.sources.blocks import outcomes, samples

ATTRIBUTES = ("5_o_Clock_Shadow", "Male", "Young")
PARTITION = [0, 0, 2, 0, 1, 0, 2, 0, 1, 0, 0]  # of the images 000001.jpg to 000011.jpg


@pytest.fixture(scope="module")
def faces() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    files = {}
    for i in range(1, len(PARTITION) + 1):
        small = Image.fromarray(rng.integers(0, 256, (7, 6, 3), dtype=np.uint8))
        stream = io.BytesIO()
        small.resize((178, 218), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
        files[f"{i:06d}.jpg"] = stream.getvalue()
    return files


def values(i: int) -> list[int]:
    return [1 if i % (j + 2) else -1 for j in range(len(ATTRIBUTES))]


def partition_txt() -> str:
    return "".join(f"{i:06d}.jpg {split}\n" for i, split in enumerate(PARTITION, start=1))


def attributes_txt() -> str:
    rows = "".join(
        f"{i:06d}.jpg  {' '.join(f'{v:2d}' for v in values(i))}\n"
        for i in range(1, len(PARTITION) + 1)
    )
    return f"{len(PARTITION)}\n{' '.join(ATTRIBUTES)} \n{rows}"


def zipped(path: Path, files: dict[str, bytes], folder: str = "img_align_celeba/") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(f"{folder}{name}", data)
    return path


@pytest.fixture
def site(tmp_path: Path, faces: dict[str, bytes]) -> Path:
    """CelebA/Img, Eval and Anno as in the site's drive."""
    root = tmp_path / "CelebA"
    zipped(root / "Img" / "img_align_celeba.zip", faces)
    (root / "Eval").mkdir()
    (root / "Eval" / "list_eval_partition.txt").write_text(partition_txt())
    (root / "Anno").mkdir()
    (root / "Anno" / "list_attr_celeba.txt").write_text(attributes_txt())
    return root


def test_official_splits_at_64_pixels(site: Path, faces: dict[str, bytes]) -> None:
    source = celeba(site)
    read = samples(source)
    numbers = {split: [int(s.key) for s in found] for split, found in read.items()}
    assert numbers == {
        name: [i for i, part in enumerate(PARTITION, start=1) if part == number]
        for number, name in enumerate(("train", "val", "test"))
    }
    assert source.transform.size == (64, 64) and source.transform.storage == "png"
    for sample in (s for found in read.values() for s in found):
        assert list(sample.members) == [sample.image_ext] == ["png"]
        assert (sample.width, sample.height, sample.label) == (64, 64, None)
        assert sample.source == f"{sample.key}.jpg"
        # DPLC: shorter side to 64, so 64×78; centre crop.
        face = Image.open(io.BytesIO(faces[sample.source]))
        expected = face.resize((64, 78), Image.Resampling.BILINEAR).crop((0, 7, 64, 71))
        np.testing.assert_array_equal(decode.decode(sample.members["png"]), np.asarray(expected))


def test_every_layout_gives_the_same_samples(
    site: Path, faces: dict[str, bytes], tmp_path: Path
) -> None:
    expected = samples(celeba(site, attributes=True))
    layouts = [site / "Img" / "img_align_celeba.zip"]

    flat = tmp_path / "flat"
    zipped(flat / "img_align_celeba.zip", faces)
    (flat / "list_eval_partition.txt").write_text(partition_txt())
    (flat / "list_attr_celeba.txt").write_text(attributes_txt())
    layouts += [flat, flat / "img_align_celeba.zip"]

    extracted = tmp_path / "extracted"
    shutil.copytree(flat, extracted)
    with zipfile.ZipFile(extracted / "img_align_celeba.zip") as archive:
        archive.extractall(extracted)
    (extracted / "img_align_celeba.zip").unlink()
    layouts += [extracted, extracted / "img_align_celeba"]

    tables = {
        "list_eval_partition.csv": "image_id,partition\r\n"
        + partition_txt().replace(" ", ",").replace("\n", "\r\n"),
        "list_attr_celeba.csv": f"image_id,{','.join(ATTRIBUTES)}\n"
        + "".join(f"{name},{','.join(map(str, values(int(name[:6]))))}\n" for name in faces),
    }
    kaggle = zipped(
        tmp_path / "kaggle" / "archive.zip", faces, "img_align_celeba/img_align_celeba/"
    )
    with zipfile.ZipFile(kaggle, "a") as archive:
        for name, text in tables.items():
            archive.writestr(name, text)
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(kaggle) as archive:
        archive.extractall(unpacked)
    layouts += [kaggle, unpacked]

    for layout in layouts:
        assert samples(celeba(layout, attributes=True)) == expected, layout


def test_attributes_become_json(site: Path) -> None:
    for sample in (s for found in samples(celeba(site, attributes=True)).values() for s in found):
        assert list(sample.members) == ["png", "json"]
        content = json.loads(sample.members["json"])
        assert content == {
            "attributes": dict(zip(ATTRIBUTES, values(int(sample.key)), strict=True))
        }


def test_the_seeded_test_split(site: Path) -> None:
    shutil.rmtree(site / "Eval")  # which it can do without
    source = celeba(site, test_images=4)
    keys = {split: [s.key for s in found] for split, found in samples(source).items()}
    assert list(keys) == ["train", "test"]
    assert len(keys["test"]) == 4
    assert sorted(keys["train"] + keys["test"]) == [f"{i:06d}" for i in range(1, 12)]
    assert all(found == sorted(found) for found in keys.values())
    assert samples(celeba(site, test_images=4)) == samples(source, block_size=100)
    other = celeba(site, test_images=4, seed=1)
    assert [s.key for s in samples(other)["test"]] != keys["test"]
    assert other.parameters != source.parameters
    for images in (0, 11, -1):
        with pytest.raises(ShardError, match=r"choose 1 to 10$"):
            celeba(site, test_images=images)


def test_original_bytes_on_request(site: Path, faces: dict[str, bytes]) -> None:
    source = celeba(site, storage="original")
    assert source.transform.size is None
    for sample in (s for found in samples(source).values() for s in found):
        assert sample.members == {"jpg": faces[sample.source]}
        assert (sample.width, sample.height) == (178, 218)


def test_a_damaged_face_names_itself(tmp_path: Path, faces: dict[str, bytes]) -> None:
    broken = {**faces, "000003.jpg": faces["000003.jpg"][:2000], "000004.jpg": b"no image"}
    path = zipped(tmp_path / "img_align_celeba.zip", broken)
    (tmp_path / "list_eval_partition.txt").write_text(partition_txt())
    read = outcomes(celeba(path))
    skipped = [s for found in read.values() for s in found if isinstance(s, Skipped)]
    assert [s.path for s in skipped] == [
        "img_align_celeba/000004.jpg", "img_align_celeba/000003.jpg",
    ]  # fmt: skip
    for one in skipped:
        assert one.reason.startswith(f"{one.path} in {path} is not an image that can be read (")
    assert sum(map(len, read.values())) == len(faces)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("Eval/list_eval_partition.txt", "000004.jpg 0\n", "", r"lacks 1 images of .*000004"),
        ("Eval/list_eval_partition.txt", "000004.jpg 0", "000044.jpg 0", r"lacks 1 of the 11 .*44"),
        ("Eval/list_eval_partition.txt", "000004.jpg 0", "000004.jpg 3", r"line 4: expected an "),
        ("Eval/list_eval_partition.txt", "000004.jpg 0", "000004.jpg", r"line 4: expected an "),
        ("Anno/list_attr_celeba.txt", "000002.jpg  -1", "000002.jpg  0", r"line 4: an attribute "),
        ("Anno/list_attr_celeba.txt", "000002.jpg  -1", "000002.jpg", r"line 4: 2 values for 3 "),
        ("Anno/list_attr_celeba.txt", "000002.jpg", "000020.jpg", r"such as 000020\.jpg: unpack"),
    ],
)
def test_lists_that_do_not_fit(site: Path, name: str, old: str, new: str, message: str) -> None:
    text = (site / name).read_text()
    assert old in text
    (site / name).write_text(text.replace(old, new))
    with pytest.raises(ShardError, match=message):
        celeba(site, attributes=True)


def test_an_edited_list_is_another_data_set(site: Path) -> None:
    def content() -> object:
        return celeba(site, attributes=True).parameters["content"]

    before = content()
    assert content() == before
    for name, old, new in (
        (
            "Eval/list_eval_partition.txt",
            "000002.jpg 0\n000003.jpg 2",
            "000002.jpg 2\n000003.jpg 0",
        ),
        ("Anno/list_attr_celeba.txt", "000002.jpg  -1", "000002.jpg   1"),
    ):
        text = (site / name).read_text()
        assert old in text
        (site / name).write_text(text.replace(old, new))
        assert content() != before
        before = content()


def test_layouts_that_lack_something(site: Path) -> None:
    with pytest.raises(ShardError, match=r"celeba needs the path of img_align_celeba\.zip"):
        celeba(None)
    with pytest.raises(ShardError, match=r"holds no images 000001\.jpg"):
        celeba(site / "Anno")
    shutil.rmtree(site / "Anno")
    with pytest.raises(ShardError, match=r"no list_attr_celeba\.txt .* or leave --attributes out"):
        celeba(site, attributes=True)
    shutil.rmtree(site / "Eval")
    with pytest.raises(
        ShardError, match=r"no list_eval_partition\.txt .*: put it there .* or .*test-images 10000"
    ):
        celeba(site)


def test_a_set_is_built(site: Path, faces: dict[str, bytes], tmp_path: Path) -> None:
    shards = build(
        "celeba", tmp_path / "set", path=site, options={"attributes": True}, shard_size=4
    )
    assert shards.info.counts == {"train": 7, "val": 2, "test": 2}
    image = Image.open(io.BytesIO(faces["000003.jpg"])).resize((64, 78), Image.Resampling.BILINEAR)
    split = shards.split("test")
    np.testing.assert_array_equal(split.image(0), np.asarray(image)[7:71])
    assert split.key(0) == "000003"
