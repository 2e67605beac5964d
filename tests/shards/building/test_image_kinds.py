"""What a set takes of image files of every kind, by stated rules that dataset.json counts."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.building.build import build
from shards.building.foreign import index_tars
from shards.building.pictures import Pictures
from shards.building.subset import sample_set
from shards.checking.verify import verify
from shards.errors import ShardError
from shards.reading.decode import LAID_OVER_WHITE, MAX_PIXELS, TAKEN_AS_STORED, decode
from shards.reading.image_headers import FORMATS
from shards.reading.reader import open_set
from tests.shards.foreign_tars import write_tar
from tests.shards.image_kinds import COLOURS, Kind, broken_metadata, kinds, png

KINDS = list(kinds())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("storage", ["png", "original"])
def test_a_picture_is_stored_by_its_rule_or_refused(kind: Kind, storage: str) -> None:
    stored = Pictures(None, storage)
    if kind.bits > 8 or kind.rgb is None:
        with pytest.raises(ValueError, match=kind.refused or "more than 8 bits"):
            stored.encode(kind.data)
        return
    if storage == "original" and kind.clear:
        with pytest.raises(ValueError, match="transparent pixels, whose hidden colours"):
            stored.encode(kind.data)
        return
    found = stored.encode(kind.data)
    assert np.array_equal(decode(found.data), kind.rgb)
    assert (found.width, found.height) == kind.rgb.shape[1::-1]
    assert (LAID_OVER_WHITE in found.done) == kind.clear
    assert len(found.done) == kind.clear + bool(kind.done)
    if storage == "original":
        assert found.data == kind.data


def write(root: Path, kinds: list[Kind]) -> Path:
    root.mkdir()
    for number, kind in enumerate(kinds):
        (root / f"{number:03d}.png").write_bytes(kind.data)
    return root


def test_a_folder_of_every_kind(tmp_path: Path) -> None:
    """What was done is counted, and what is not taken is listed with its reason."""
    root = write(tmp_path / "images", KINDS)
    (root / "zz.png").write_bytes(
        png(COLOURS, 8, 2, [(b"eXIf", broken_metadata()["cut header"][0])])
    )
    options = {"test_fraction": 0, "storage": "png"}
    made = build("folder", tmp_path / "set", path=root, options=options, on_error="skip")
    taken = [kind for kind in KINDS if kind.bits == 8 and kind.rgb is not None]
    train = made.split("train")
    assert len(train) == len(taken) + 1
    for row, kind in enumerate(taken):
        assert np.array_equal(train.read(row).image, kind.rgb), kind.name
    assert made.info.conversions[LAID_OVER_WHITE] == sum(kind.clear for kind in taken)
    assert made.info.conversions[TAKEN_AS_STORED] == 1
    assert sum(made.info.conversions.values()) == 2 + sum(kind.clear for kind in taken)
    assert len(made.info.skipped) == len(KINDS) - len(taken)
    for one in made.info.skipped:
        kind = KINDS[int(one.path[:3])]
        start = f"{one.path} in {root} is not "
        assert one.reason.startswith(start) and one.reason.endswith("--on-error skip")
    again = json.loads((tmp_path / "set" / "dataset.json").read_text())
    assert again["conversions"] == made.info.conversions
    found = verify(made.path)
    assert found.ok and not any("transparent" in note for note in found.notes)
    cut = sample_set(made.path, tmp_path / "sample", count=5)
    assert cut.info.parameters["origin"]["conversions"] == made.info.conversions


def test_one_picture_that_is_not_taken_stops_the_build(tmp_path: Path) -> None:
    kind = next(kind for kind in KINDS if kind.name == "PNG RGB 10 in 16")
    root = write(tmp_path / "images", [kind])
    with pytest.raises(ShardError) as refusal:
        build("folder", tmp_path / "set", path=root, options={"test_fraction": 0})
    assert str(refusal.value) == (
        f"000.png in {root} is not taken: it has 16 bits a channel, and more than 8 bits a channel "
        "would be cut: convert it to 8 bits first, or leave it out with --on-error skip"
    )


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_pillows_limit_of_pixels_decides_nothing(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2)
    if kind.bits == 8 and kind.rgb is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = Pictures(None, "png").encode(kind.data)
            assert np.array_equal(decode(found.data), kind.rgb)
    assert Image.MAX_IMAGE_PIXELS == 2


def test_the_largest_number_of_pixels_is_ours(tmp_path: Path) -> None:
    root = write(tmp_path / "images", [kind for kind in KINDS if kind.name == "PNG RGB 8"])
    options = {"test_fraction": 0, "max_pixels": 34}
    with pytest.raises(
        ShardError,
        match=r"000.png in .* is not taken: its 7x5 pixels exceed the limit of 34 pixels",
    ):
        build("folder", tmp_path / "set", path=root, options=options)
    for limit, stated in ((35, {"max_pixels": 35}), (MAX_PIXELS, {})):
        options["max_pixels"] = limit
        made = build("folder", tmp_path / f"set-{limit}", path=root, options=options)
        assert stated.items() <= made.info.parameters.items()
        assert ("max_pixels" in made.info.parameters) == bool(stated)
    with pytest.raises(ShardError, match="the limit of 0 pixels must be at least 1"):
        build("folder", tmp_path / "none", path=root, options={"max_pixels": 0})


def test_tars_of_others(tmp_path: Path) -> None:
    """The index refuses what reading cannot show, and verify notes the alpha that it drops."""
    by_name = {kind.name: kind for kind in KINDS}
    for name, words in (
        ("PNG RGB 16", "more than 8 bits a channel"),
        ("PNG animated", "several pages or frames"),
        ("TIFF of three pages", "several pages or frames"),
    ):
        tars = tmp_path / name
        tars.mkdir()
        extension = FORMATS[name.split()[0]]
        write_tar(tars / "a.tar", {f"0.{extension}": by_name[name].data})
        with pytest.raises(ShardError, match=words):
            index_tars(tars)
    tars = tmp_path / "alpha"
    tars.mkdir()
    clear, full = by_name["PNG RGB 8 with some alpha"], by_name["PNG RGB 8 with full alpha"]
    write_tar(tars / "a.tar", {"0.png": clear.data, "1.png": full.data})
    index_tars(tars)
    assert np.array_equal(open_set(tars).split("train").read(0).image, COLOURS)
    found = verify(tars)
    assert found.ok
    assert found.notes == ["transparent pixels show the colours that they hide: 1 of 2 images"]
