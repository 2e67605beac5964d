"""Damaged files of every kind that people give us: each is taken, or refused in one sentence."""

from __future__ import annotations

import gzip
import io
import shutil
import struct
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml
from PIL import Image

from cluster import data
from cluster.run_entry import enter
from gencomp import recipes
from gencomp.cli import main
from gencomp.errors import InputError
from shards.errors import ShardError
from tests import tiny
from tests.mutation import mutated
from tests.resident_memory import forget_peak, peak

# What a file may cost, in CPU seconds and in bytes of memory that are resident at once.
_SECONDS, _MEMORY = 10.0, 1e9
_SUMS_MENDED = 0.5  # how often the checksums of a mutated PNG are mended, so that more is reached


class Scene(NamedTuple):
    """What the cases share.

    Attributes:
        place: an empty directory for each case.
        codec: the run that compresses.
        set: a good shard set, which is copied.
    """

    place: Path
    codec: Path
    set: Path


def images() -> dict[str, list[bytes]]:
    """Pictures of 20×16 pixels by the ending of their files."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 20, 4), np.uint8)
    pixels[:8] = pixels[0, 0]
    deep_pixels = pixels[..., 0].astype(np.uint16) * 257
    rgba = Image.fromarray(pixels)
    rgb, grey, deep = rgba.convert("RGB"), rgba.convert("L"), Image.fromarray(deep_pixels)
    exif = Image.Exif()
    exif[0x0112] = 6
    written: dict[str, list[tuple[Image.Image, dict[str, Any]]]] = {
        "png": [(rgb, {}), (rgba, {}), (grey, {}), (deep, {}), (rgb.quantize(8), {})],
        "jpg": [(rgb, {"exif": exif}), (rgb, {"progressive": True}), (rgb.convert("CMYK"), {})],
        "tif": [(rgb, {}), (deep, {}), (rgb, {"compression": "tiff_lzw"}), (grey, {})],
        "webp": [(rgb, {}), (rgba, {"lossless": True})],
        "gif": [(rgb.quantize(8), {}), (grey, {"save_all": True, "append_images": [grey]})],
    }
    kinds = {"jpg": "JPEG", "tif": "TIFF"}
    found: dict[str, list[bytes]] = {}
    for ending, pictures in written.items():
        for picture, options in pictures:
            buffer = io.BytesIO()
            picture.save(buffer, kinds.get(ending, ending.upper()), **options)
            found.setdefault(ending, []).append(buffer.getvalue())
    return found


def with_sums(png: bytes) -> bytes:
    """A PNG whose chunks have the right checksums, as far as its chunks can be followed."""
    made, at = bytearray(png), 8
    while at + 12 <= len(made):
        (length,) = struct.unpack(">I", made[at : at + 4])
        end = at + 8 + length
        if end + 4 > len(made):
            break
        made[end : end + 4] = struct.pack(">I", zlib.crc32(made[at + 4 : end]))
        at = end + 4
    return bytes(made)


_IMAGES = images()


def picture(generator: np.random.Generator) -> tuple[str, bytes]:
    """The ending and the bytes of a mutated picture."""
    ending = str(generator.choice(list(_IMAGES)))
    made = mutated(_IMAGES[ending], generator)
    if ending == "png" and generator.random() < _SUMS_MENDED:
        made = with_sums(made)
    return ending, made


def on_error(generator: np.random.Generator) -> list[str]:
    return ["--on-error", "skip"] if generator.integers(2) else []


def build_folder(scene: Scene, generator: np.random.Generator) -> list[str]:
    ending, made = picture(generator)
    files = {f"train/bad.{ending}": made}
    files |= {f"{split}/good.png": _IMAGES["png"][n] for n, split in enumerate(("train", "test"))}
    for name, content in files.items():
        file = scene.place / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return ["shards", "build", "folder", "images", "--out", "set", *on_error(generator)]


def compress(scene: Scene, generator: np.random.Generator) -> list[str]:
    ending, made = picture(generator)
    (scene.place / f"bad.{ending}").write_bytes(made)
    return ["compress", str(scene.codec), f"bad.{ending}", "file.gc"]


def archive(scene: Scene, generator: np.random.Generator, kind: str) -> list[str]:
    """A folder of pictures as one archive, which is mutated."""
    buffer = io.BytesIO()
    names = [f"{split}/{n}.png" for split in ("train", "test") for n in range(2)]
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in zip(names, _IMAGES["png"], strict=False):
                file.writestr(name, content)
    else:
        with tarfile.open(fileobj=buffer, mode=f"w:{kind.removeprefix('tar').strip('.')}") as tar:
            for name, content in zip(names, _IMAGES["png"], strict=False):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    (scene.place / f"images.{kind}").write_bytes(mutated([buffer.getvalue()], generator))
    return ["shards", "build", "folder", f"images.{kind}", "--out", "set", *on_error(generator)]


def index_tar(scene: Scene, generator: np.random.Generator) -> list[str]:
    """A tar of a good set, which is mutated and indexed as somebody else's."""
    (scene.place / "tars").mkdir()
    for file in sorted(scene.set.glob("*.tar"))[:2]:
        shutil.copy(file, scene.place / "tars" / file.name)
    bad = min((scene.place / "tars").iterdir())
    bad.write_bytes(mutated([bad.read_bytes()], generator))
    return ["shards", "index", "tars", "--out", "set"]


def verify(scene: Scene, generator: np.random.Generator) -> list[str]:
    """A good set, one of whose files is mutated."""
    copy = scene.place / "copy"
    shutil.copytree(scene.set, copy)
    damage(copy, generator)
    return ["shards", "verify", "copy"]


def damage(copy: Path, generator: np.random.Generator) -> None:
    files = sorted(file for file in copy.rglob("*") if file.is_file())
    weights = np.array([1 if file.suffix == ".tar" else 4 for file in files], float)
    bad = files[generator.choice(len(files), p=weights / weights.sum())]
    bad.write_bytes(mutated([bad.read_bytes()], generator))


def build_mnist(scene: Scene, generator: np.random.Generator) -> list[str]:
    """The four idx files of MNIST, compressed or not, one of which is mutated."""
    numbers = np.random.default_rng(1)
    folder = scene.place / "mnist"
    folder.mkdir()
    bad = generator.integers(4)
    for place, (split, count) in enumerate([("train", 5), ("train", 5), ("t10k", 3), ("t10k", 3)]):
        images_or_labels = "labels-idx1" if place % 2 else "images-idx3"
        shape = (count,) if place % 2 else (count, 28, 28)
        head = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)
        content = head + numbers.integers(0, 10, shape, np.uint8).tobytes()
        packed = generator.integers(2)
        if place == bad and generator.integers(2):
            content = mutated([content], generator)
        content = gzip.compress(content) if packed else content
        if place == bad:
            content = mutated([content], generator)
        name = f"{split}-{images_or_labels}-ubyte{'.gz' if packed else ''}"
        (folder / name).write_bytes(content)
    return ["shards", "build", "mnist", "mnist", "--out", "set"]


KINDS: dict[str, Callable[[Scene, np.random.Generator], list[str]]] = {
    "folder": build_folder,
    "compress": compress,
    "zip": lambda scene, generator: archive(scene, generator, "zip"),
    "tar": lambda scene, generator: archive(scene, generator, "tar"),
    "tar.gz": lambda scene, generator: archive(scene, generator, "tar.gz"),
    "index": index_tar,
    "verify": verify,
    "mnist": build_mnist,
}


def check(
    scene: Scene,
    kind: str,
    seed: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> bool:
    """One command on one damaged file; returns whether the file was taken."""
    words = KINDS[kind](scene, np.random.default_rng(seed))
    if words[0] == "shards":
        words += ["--processes", "1"]
    monkeypatch.chdir(scene.place)
    before = tiny.tree(scene.place)
    memory, start = forget_peak(), time.process_time()
    code = main(words)
    seconds, grown = time.process_time() - start, peak() - memory
    said = capsys.readouterr()
    which = f"{kind} {seed}: {said.err}"
    assert seconds < _SECONDS and grown < _MEMORY, (which, seconds, grown)
    if code == 2:
        assert said.err.startswith("gencomp: error: ") and said.err.count("\n") == 1, which
        # A build that stops keeps what it has for the next try, out of sight.
        after = {k: v for k, v in tiny.tree(scene.place).items() if not k.startswith(".set.build")}
        assert after == before, which
    elif kind == "verify":
        assert code == 0 or (code == 1 and " problem" in said.out and not said.err), which
    else:
        assert code == 0 and "Traceback" not in said.err, which
        if words[0] == "shards":
            found = main(["shards", "verify", "set", "--processes", "1"])
            # Tars of others are indexed without a look at their pixels.
            assert found == 0 or kind == "index", (which, capsys.readouterr().out)
            capsys.readouterr()
    return code == 0


@pytest.fixture(scope="module")
def good_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of 12 images in four shards."""
    place = tmp_path_factory.mktemp("good") / "set"
    words = "shards build shapes --limit 6 --shard-size 3 --processes 1 --out"
    assert main([*words.split(), str(place)]) == 0
    return place


def taken(
    kind: str,
    seeds: range,
    codec: Path,
    good_set: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> int:
    """How many of the damaged files are taken."""
    count = 0
    for seed in seeds:
        place = tmp_path / str(seed)
        place.mkdir()
        count += check(Scene(place, codec, good_set), kind, seed, capsys, monkeypatch)
        shutil.rmtree(place)
    return count


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seeds", [range(8), pytest.param(range(8, 240), marks=pytest.mark.slow)])
def test_commands_take_or_refuse_it(
    kind: str,
    seeds: range,
    codec_run: Path,
    good_set: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count = taken(kind, seeds, codec_run, good_set, tmp_path, capsys, monkeypatch)
    assert len(seeds) < 100 or 0 < count < len(seeds)  # the mutations are neither harmless nor wild


@pytest.mark.parametrize("seeds", [range(20), pytest.param(range(20, 240), marks=pytest.mark.slow)])
def test_training_starts_on_it_or_refuses_it(seeds: range, good_set: Path, tmp_path: Path) -> None:
    """Mutated recipes, and good ones on a set that is damaged."""
    for seed in seeds:
        generator = np.random.default_rng(seed)
        place = tmp_path / str(seed)
        shutil.copytree(good_set, place / "set")
        file = tiny.write(tiny.generator(place / "set"), place / "recipe.yaml")
        if seed % 2:
            file.write_bytes(mutated([file.read_bytes()], generator))
        else:
            damage(place / "set", generator)
        memory, start = forget_peak(), time.process_time()
        try:
            recipe = recipes.load(file)
            run = enter(place / "run", recipe)
            batches = data.training_stream(recipe, *data.open_training(run.recipe()), 0, 1, 0)
            for _, _ in zip(range(2), batches, strict=False):
                pass
        except (InputError, ShardError) as error:
            assert "\n" not in str(error), (seed, str(error))
        assert time.process_time() - start < _SECONDS and peak() - memory < _MEMORY, seed
        assert not (place / "run").exists() or yaml.safe_load((place / "run/recipe.yaml").open())
        shutil.rmtree(place)
