"""Folders and archives of images, Kodak, CLIC."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.building.build import build
from shards.building.sources import Source
from shards.building.sources.folder import clic, folder, kodak
from shards.errors import ShardError
from shards.info import Skipped
from tests.shards.building.sources.blocks import outcomes, samples
from tests.shards.building.sources.reading import pixels


def image(seed: int, size: tuple[int, int] = (9, 7), form: str = "PNG", **options: object) -> bytes:
    """A file with random pixels; size: width, height."""
    rng = np.random.default_rng(seed)
    stream = io.BytesIO()
    pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, form, **options)  # type: ignore[arg-type]
    return stream.getvalue()


def write(root: Path, names: list[str]) -> dict[str, bytes]:
    """Images of several sizes and formats, by name."""
    made = {}
    for seed, name in enumerate(names):
        form = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}[name.rsplit(".", 1)[1]]
        made[name] = image(seed, (9 + seed, 20 - seed), form)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(made[name])
    return made


def pack(root: Path, archive: Path, prefix: str = "") -> Path:
    """All files below root, with what macOS adds to a zip."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as zipped:
            for file in files:
                name = file.relative_to(root)
                zipped.write(file, f"{prefix}{name}")
                zipped.writestr(f"__MACOSX/{prefix}{name.parent}/._{name.name}", b"junk")
        return archive
    with tarfile.open(archive, "w:gz") as tar:
        for file in files:
            tar.add(file, f"{prefix}{file.relative_to(root)}")
    return archive


def keys(source: Source, split: str) -> list[str]:
    return [sample.key for sample in samples(source)[split]]


NAMES = ["cats/a.jpg", "cats/b.v2.png", "dogs/d.webp", "dogs/deep/c.png", "loose.png"]


def test_bytes_labels_and_keys(tmp_path: Path) -> None:
    root = tmp_path / "images"
    made = write(root, NAMES)
    (root / ".hidden").mkdir()
    (root / ".hidden" / "x.png").write_bytes(b"not looked at")
    (root / "cats" / ".DS_Store").write_bytes(b"not looked at")
    source = folder(root, test_fraction=0)
    assert source.classes == ["cats", "dogs"] and list(source.splits) == ["train"]
    found = samples(source, 2)["train"]
    assert [sample.source for sample in found] == NAMES
    assert [sample.key for sample in found] == [
        "cats/a", "cats/b_v2", "dogs/d", "dogs/deep/c", "loose",
    ]  # fmt: skip
    assert [sample.label for sample in found] == [0, 0, 1, 1, None]
    assert [sample.members.get("cls") for sample in found] == [b"0", b"0", b"1", b"1", None]
    for sample in found:
        assert sample.members[sample.image_ext] == made[sample.source]


@pytest.mark.parametrize("archive", ["images.zip", "images.tar.gz"])
@pytest.mark.parametrize("prefix", ["", "images/"])
def test_an_archive_is_read_like_its_folder(tmp_path: Path, archive: str, prefix: str) -> None:
    write(tmp_path / "images", NAMES)
    plain = folder(tmp_path / "images", test_images=2, seed=4)
    packed = folder(pack(tmp_path / "images", tmp_path / archive, prefix), test_images=2, seed=4)
    assert packed.classes == plain.classes
    for split in ("train", "test"):
        ours, theirs = samples(packed)[split], samples(plain)[split]
        assert ours == [sample._replace(source=f"{prefix}{sample.source}") for sample in theirs]


@pytest.mark.parametrize("packed", [False, True])
def test_its_own_splits(tmp_path: Path, packed: bool) -> None:
    root = tmp_path / "images"
    write(root, ["train/cats/a.png", "train/dogs/a.png", "val/dogs/a.png"])
    path = pack(root, tmp_path / "i.zip") if packed else root
    source = folder(path)
    assert source.classes == ["cats", "dogs"]
    assert keys(source, "train") == ["train/cats/a", "train/dogs/a"]
    assert [sample.label for sample in samples(source)["val"]] == [1]
    with pytest.raises(ShardError, match="has the splits train, val: leave test images"):
        folder(path, test_images=1)
    (root / "stray.png").write_bytes(b"")
    with pytest.raises(ShardError, match=r"stray.png is in none of them: move it, or leave it out"):
        build("folder", tmp_path / "set", path=root, processes=1)


def test_a_zip_of_one_split_keeps_it(tmp_path: Path) -> None:
    write(tmp_path / "images", ["cats/a.png", "dogs/a.png"])
    source = folder(pack(tmp_path / "images", tmp_path / "i.zip", "test/"))
    assert list(source.splits) == ["test"] and source.classes == ["cats", "dogs"]


OWN = ["test/cats/b.png", "train/cats/a.png", "train/dogs/a.png"]


def packed_as(path: Path, made: dict[str, bytes], name: Callable[[str], str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file, data in made.items():
            archive.writestr(name(file), data)
    return path


@pytest.mark.parametrize(
    "name",
    [
        lambda file: file.replace("/", "\\"),
        lambda file: f"set/{file}".replace("/", "\\"),
        lambda file: f"./{file}",
        lambda file: f"/data/me/set/{file}",
        lambda file: rf"C:\Users\me\{file}".replace("/", "\\"),
        lambda file: f"set/deeper/{file}",
    ],
)
def test_an_archive_keeps_its_splits_and_classes(
    tmp_path: Path, name: Callable[[str], str]
) -> None:
    path = packed_as(tmp_path / "i.zip", write(tmp_path / "images", OWN), name)
    source = folder(path)
    assert source.classes == ["cats", "dogs"] and list(source.splits) == ["test", "train"]
    assert keys(source, "test") == ["test/cats/b"]
    assert [sample.label for sample in samples(source)["train"]] == [0, 1]


def test_a_file_beside_the_folder_of_the_splits_does_not_hide_them(tmp_path: Path) -> None:
    made = {f"set/{name}": data for name, data in write(tmp_path / "in" / "set", OWN).items()}
    made["README.txt"] = b"hello"
    path = packed_as(tmp_path / "i.zip", made, str)
    built = build("folder", tmp_path / "set", path=path, on_error="skip", processes=1)
    assert built.splits == {"test": 1, "train": 2}
    assert [skipped.path for skipped in built.info.skipped] == ["README.txt"]
    with pytest.raises(ShardError, match=r"its splits in the folder set: give the path .*in/set"):
        folder(tmp_path / "in")
    assert len(folder(tmp_path / "in", test_fraction=0).splits["train"]) == 3


@pytest.mark.parametrize("stray", ["LICENSE", "wnids.txt", "Thumbs.db", "train/cats/Thumbs.db",
                                   "train/__pairs__/a.png", "extra/a.png"])  # fmt: skip
def test_stray_files_end_a_build_or_are_left_out_and_named(tmp_path: Path, stray: str) -> None:
    root = tmp_path / "images"
    made = write(root, OWN)
    plain = build("folder", tmp_path / "plain", path=root, processes=1)
    (root / stray).parent.mkdir(exist_ok=True)
    (root / stray).write_bytes(made[OWN[0]] if stray.endswith("png") else b"no image")
    with pytest.raises(ShardError, match=rf"{stray}.*--on-error skip"):
        build("folder", tmp_path / "stop", path=root, processes=1)
    assert not (tmp_path / "stop").exists()
    built = build("folder", tmp_path / "set", path=root, on_error="skip", processes=1)
    assert [skipped.path for skipped in built.info.skipped] == [stray]
    assert built.index_hash == plain.index_hash and built.info.classes == ["cats", "dogs"]


def test_the_draw(tmp_path: Path) -> None:
    write(tmp_path / "images", [f"{n:02d}.png" for n in range(10)])
    draws = [
        keys(folder(tmp_path / "images", test_images=4, seed=seed), "test") for seed in (0, 0, 1)
    ]
    assert draws[0] == draws[1] != draws[2]
    assert all(len(draw) == 4 and draw == sorted(draw) for draw in draws)
    source = folder(tmp_path / "images", test_fraction=0.4)
    assert keys(source, "test") == draws[0]
    assert sorted(keys(source, "train") + draws[0]) == [f"{n:02d}" for n in range(10)]
    assert len(folder(tmp_path / "images").splits["test"]) == 1
    (tmp_path / "images" / "zz.png").write_bytes(image(99))  # the others keep their places
    assert set(keys(folder(tmp_path / "images", test_images=4), "test")) <= {*draws[0], "zz"}


def test_keys_never_collide(tmp_path: Path) -> None:
    write(tmp_path / "images", ["a.png", "a.jpg", "a.b.png", "a_b.png"])
    assert keys(folder(tmp_path / "images", test_fraction=0), "train") == [
        "a_b",
        "a",
        "a~2",
        "a_b~2",
    ]


def test_orientation_is_applied_when_pixels_are_stored_anew(tmp_path: Path) -> None:
    root = tmp_path / "images"
    root.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    (root / "a.png").write_bytes(image(1, (12, 8), exif=exif))
    kept = samples(folder(root, test_fraction=0))["train"][0]
    assert kept.members["png"] == (root / "a.png").read_bytes()
    assert (kept.width, kept.height) == (12, 8)
    turned = samples(folder(root, test_fraction=0, storage="png"))["train"][0]
    with Image.open(root / "a.png") as original:
        assert np.array_equal(pixels(turned), np.rot90(np.asarray(original), -1))


def test_resized(tmp_path: Path) -> None:
    root = tmp_path / "images"
    root.mkdir()
    (root / "a.png").write_bytes(image(1, (30, 20)))
    sample = samples(folder(root, size="8", test_fraction=0))["train"][0]
    with Image.open(root / "a.png") as whole:
        expected = whole.resize((12, 8), Image.Resampling.BILINEAR).crop((2, 0, 10, 8))
    assert np.array_equal(pixels(sample), np.asarray(expected))


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    root = tmp_path / "images"
    made = write(root, NAMES)
    (root / "notes.txt").write_text("not an image")
    (root / "loose.png").write_bytes(made["loose.png"][:-30])
    found = outcomes(folder(root, test_fraction=0), 3)["train"]
    refused = [outcome for outcome in found if isinstance(outcome, Skipped)]
    assert [outcome.path for outcome in refused] == ["loose.png", "notes.txt"]
    assert all(f"{outcome.path} in {root} is not an image" in outcome.reason for outcome in refused)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_images": 5}, "a test split of 5 images cannot be drawn from the 5 files"),
        ({"test_images": 0}, "cannot be drawn"),
        ({"test_fraction": 1.5}, "between 0 and 1, not 1.5"),
        ({"test_fraction": 0.5, "test_images": 2}, "not both"),
        ({"size": "0"}, "size"),
        ({"storage": "gif"}, "storage 'gif' is not one of"),
    ],
)
def test_bad_options(tmp_path: Path, options: dict, message: str) -> None:
    write(tmp_path / "images", NAMES)
    with pytest.raises(ShardError, match=message):
        folder(tmp_path / "images", **options)


def test_bad_paths(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="needs the path"):
        folder(None)
    with pytest.raises(ShardError, match="nowhere"):
        folder(tmp_path / "nowhere")
    with pytest.raises(ShardError, match="holds no files"):
        folder(tmp_path)
    (tmp_path / "a.zip").write_bytes(b"PK not a zip")
    with pytest.raises(ShardError, match=r"a.zip is not a zip or tar archive"):
        folder(tmp_path / "a.zip")


@pytest.mark.parametrize("packed", [False, True])
def test_the_built_set(tmp_path: Path, packed: bool) -> None:
    made = write(tmp_path / "images", NAMES)
    path = pack(tmp_path / "images", tmp_path / "i.zip") if packed else tmp_path / "images"
    (tmp_path / "images" / "zz.png").write_bytes(b"no image") if not packed else None
    built = build(
        "folder", tmp_path / "set", path=path, options={"test_images": 2},
        shard_size=2, on_error="skip", processes=1,
    )  # fmt: skip
    assert sum(built.splits.values()) == len(made)
    assert [skipped.path for skipped in built.info.skipped] == ([] if packed else ["zz.png"])
    assert built.info.transform.storage == "original"


def write_kodak(root: Path) -> None:
    root.mkdir()
    for n in range(1, 25):
        (root / f"kodim{n:02d}.png").write_bytes(image(n, (12, 8) if n % 5 else (8, 12)))


@pytest.mark.parametrize("packed", [False, True])
def test_kodak(tmp_path: Path, packed: bool) -> None:
    root = tmp_path / "kodak"
    write_kodak(root)
    (root / "readme.txt").write_text("not looked at")
    source = kodak(pack(root, tmp_path / "kodak.zip", "kodak/") if packed else root)
    assert list(source.splits) == ["test"] and source.transform.storage == "original"
    assert keys(source, "test") == [f"kodim{n:02d}" for n in range(1, 25)]
    assert [(one.path, one.reason) for one in source.passed_over] == [
        (
            "kodak.zip" if packed else "kodak",
            "files that are no photographs of Kodak: 1, the first is "
            + ("kodak/readme.txt" if packed else "readme.txt"),
        )
    ]
    for n, sample in enumerate(samples(source)["test"], start=1):
        assert sample.members == {"png": (root / f"kodim{n:02d}.png").read_bytes()}
        assert sample.label is None


def test_kodak_must_be_whole(tmp_path: Path) -> None:
    root = tmp_path / "kodak"
    write_kodak(root)
    with pytest.raises(ShardError, match=r"jpeg:90 would change it: choose the storage original"):
        kodak(root, storage="jpeg:90")
    (root / "small").mkdir()
    shutil.copy(root / "kodim07.png", root / "small")
    with pytest.raises(ShardError, match=r"holds kodim07.png and small/kodim07.png"):
        kodak(root)
    (root / "kodim07.png").rename(root / "kodim7.png")
    (root / "small" / "kodim07.png").unlink()
    with pytest.raises(ShardError, match=r"lacks 1 of the 24 .*kodim07.png first: put them"):
        kodak(root)
    with pytest.raises(ShardError, match="kodak needs the path"):
        kodak(None)


CLIC = {  # the zips of the site, and how their files are called inside
    "professional_train_2020.zip": "train/",
    "mobile_train_2020.zip": "train/",
    "professional_valid_2020.zip": "valid/",
    "mobile_valid_2020.zip": "valid/",
    "CLIC2020Professional_test.zip": "professional/",
    "professional_test_2021.zip": "",
}


def write_clic(root: Path) -> None:
    root.mkdir()
    for seed, (name, inside) in enumerate(CLIC.items()):
        folder = root.parent / "unpacked" / name.removesuffix(".zip")
        write(folder, [f"test-shot-{seed}.png", "same-name.png"][: 1 if "2021" in name else 2])
        pack(folder, root / name, inside)


def clic_names(source: Source) -> dict[str, list[tuple[str, int | None]]]:
    return {s: [(x.key, x.label) for x in samples(source)[s]] for s in source.splits}


EXPECTED = {
    "train": [
        ("mobile/same-name", 0), ("mobile/test-shot-1", 0),
        ("professional/same-name", 1), ("professional/test-shot-0", 1),
    ],
    "valid": [
        ("mobile/same-name", 0), ("mobile/test-shot-3", 0),
        ("professional/same-name", 1), ("professional/test-shot-2", 1),
    ],
    "test": [
        ("professional/same-name", 1), ("professional/test-shot-4", 1),
        ("professional/test-shot-5", 1),
    ],
}  # fmt: skip


def test_clic_as_the_site_ships_it(tmp_path: Path) -> None:
    write_clic(tmp_path / "clic")
    source = clic(tmp_path / "clic")
    assert source.classes == ["mobile", "professional"]
    assert clic_names(source) == EXPECTED
    # Unpacked, each zip into a folder of its own name.
    assert clic_names(clic(tmp_path / "unpacked")) == EXPECTED
    shutil.copytree(tmp_path / "unpacked", tmp_path / "clic" / "unpacked")
    with pytest.raises(ShardError, match=r"holds clic/.* and clic/.*: one of them is enough"):
        clic(tmp_path / "clic")


def test_one_zip_or_folder_of_clic(tmp_path: Path) -> None:
    write_clic(tmp_path / "clic")
    for path in ("clic/mobile_valid_2020.zip", "unpacked/mobile_valid_2020"):
        source = clic(tmp_path / path)
        assert clic_names(source) == {"valid": [(key, 0) for key, _ in EXPECTED["valid"][:2]]}
    (tmp_path / "clic" / "professional_test_2021.zip").rename(tmp_path / "images.zip")
    with pytest.raises(ShardError, match=r"test-shot-5.png .*does not say its split"):
        clic(tmp_path / "images.zip")
    with pytest.raises(ShardError, match="jpeg:95 would change it"):
        clic(tmp_path / "clic", storage="jpeg:95")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ShardError, match="holds no PNG file"):
        clic(tmp_path / "empty")
    with pytest.raises(ShardError, match="clic needs the path"):
        clic(None)


def test_clic_built(tmp_path: Path) -> None:
    write_clic(tmp_path / "clic")
    (tmp_path / "clic" / "LICENSE").write_text("free", encoding="utf-8")
    (tmp_path / "clic" / "photo.jpg").write_bytes(b"of somebody")
    built = build("clic", tmp_path / "set", path=tmp_path / "clic", shard_size=3, processes=1)
    assert [(one.path, one.reason) for one in built.info.skipped] == [
        ("clic", "files that are no PNG files: 2, the first is LICENSE")
    ]
    assert built.splits == {"train": 4, "valid": 4, "test": 3}
    sample = built.split("test").read(2)
    with Image.open(tmp_path / "unpacked/professional_test_2021/test-shot-5.png") as original:
        assert np.array_equal(sample.image, np.asarray(original))
