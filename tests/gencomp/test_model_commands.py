"""Exported models of every method, by the command line: the same files as those of their runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

import gencomp
import shards
from cluster.evaluations.files import plan as files
from cluster.evaluations.metrics import plan as metrics
from gencomp import model_file, recipes
from gencomp.cli import main
from gencomp.errors import InputError
from tests import tiny
from tests.gencomp import gan_cases, irec_cases, vae_cases
from tests.gencomp.systems.urdp.test_training import raw as urdp_recipe
from tests.gencomp.test_codec_commands import write_image
from tests.gencomp.test_gan_commands import SELECTIVE
from tests.gencomp.test_gan_commands import SHORT as SHORT_GAN
from tests.gencomp.test_irec_commands import SHORT as SHORT_IREC
from tests.processes import ENVIRONMENT


class Case(NamedTuple):
    """A run with an image that its codec takes.

    Attributes:
        run: the run's name.
        image: the image's file.
        words: further words of `gencomp compress`.
    """

    run: str
    image: str
    words: tuple[str, ...] = ()


CASES = [
    Case("codec", "photo.png"),
    Case("base", "digit.png"),
    Case("sharp", "digit.png"),
    Case("refined", "digit.png"),
    Case("exact", "wave.png", ("--codec.effort", "fast")),
    Case("exact", "wave.png", ("--codec.coder", "bits_back")),
    Case("small", "wave.png", ("--codec.effort", "fast")),
    Case("two", "wave.png"),
    Case("global", "scene.png"),
    Case("conditional", "scene.png", ("--maps", "label=label.png")),
    Case(
        "selective",
        "scene.png",
        ("--codec.keep", "disc,2", "--maps", "label=label.png", "instance=instance.png"),
    ),
]


@pytest.fixture(scope="module")
def runs(codec_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of each kind of codec, and an image for each."""
    folder = tmp_path_factory.mktemp("exported")
    (folder / "codec").symlink_to(codec_run)
    (folder / "generator").symlink_to(codec_run.with_name("generator"))
    write_image(folder / "photo.png", 1, 70, 90)
    _train_urdp(folder)
    (folder / "waves").mkdir()
    waves = irec_cases.shard_set(folder / "waves")
    for name, stage in (("exact", "rvae"), ("small", "one_level"), ("two", "two_level")):
        overrides = {**irec_cases.NARROW[stage], **SHORT_IREC, "data.shards": str(waves)}
        raw = recipes.with_overrides(recipes.read(irec_cases.RECIPES[stage]), overrides)
        tiny.trained(folder / name, raw)
    image_HWC = shards.open_set(waves).split("test").read(0).image
    Image.fromarray(image_HWC[:11, :14]).save(folder / "wave.png")
    _train_gans(folder)
    return folder


def _train_urdp(folder: Path) -> None:
    blobs = vae_cases.blobs(folder, side=28)
    base = folder / "base"
    tiny.trained(base, urdp_recipe("end_to_end", blobs))
    weight = {"loss.perception_weight": 0.05}
    tiny.trained(folder / "sharp", urdp_recipe("universal", blobs, base, **weight))
    tiny.trained(folder / "refined", urdp_recipe("refinement", blobs, base))
    digit_HWC = shards.open_set(blobs).split("test").read(0).image
    Image.fromarray(digit_HWC).save(folder / "digit.png")


def _train_gans(folder: Path) -> None:
    (folder / "shapes").mkdir()
    shapes = gan_cases.shard_set(folder / "shapes", train=8, test=3)
    for mode in ("global", "conditional", "selective"):
        more = SELECTIVE if mode == "selective" else {}
        overrides = {**gan_cases.overrides(mode), **SHORT_GAN, "data.shards": str(shapes), **more}
        raw = recipes.with_overrides(recipes.read(gan_cases.RECIPES[mode]), overrides)
        tiny.trained(folder / mode, raw)
    images, labels, instances = gan_cases.scenes(1, 50, 70, seed=5)
    for name, one in (("scene", images), ("label", labels), ("instance", instances)):
        Image.fromarray(one[0]).save(folder / f"{name}.png")


@pytest.fixture
def here(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the images; the runs are elsewhere."""
    for path in runs.glob("*.png"):
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pixels(path: str) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join([case.run, *case.words[:2]]))
def test_a_run_and_its_model_write_and_read_the_same_files(
    case: Case, runs: Path, here: Path
) -> None:
    run, model = str(runs / case.run), "m.gencomp"
    assert main(["export", run, model]) == 0
    content = Path(model).read_bytes()
    assert str(runs).encode() not in content and b"/tmp/" not in content
    for source, file in ((run, "run.gcp"), (model, "model.gcp")):
        assert main(["compress", source, case.image, file, *case.words]) == 0
    assert Path("run.gcp").read_bytes() == Path("model.gcp").read_bytes()
    assert main(["decompress", run, "model.gcp", "run.png"]) == 0
    assert main(["decompress", model, "run.gcp", "model.png"]) == 0
    assert Path("run.png").read_bytes() == Path("model.png").read_bytes()
    if case.run == "exact":
        assert np.array_equal(pixels("model.png"), pixels(case.image))


def test_every_decoder_of_an_encoder_is_a_model_of_its_own(runs: Path, here: Path) -> None:
    """One file through several decoders, and between two of them."""
    for name in ("base", "sharp"):
        assert main(["export", str(runs / name), f"{name}.gencomp"]) == 0
    assert main(["compress", "base.gencomp", "digit.png", "a.gcp"]) == 0
    for name in ("base", "sharp"):
        assert main(["decompress", f"{name}.gencomp", "a.gcp", f"{name}.png"]) == 0
    assert not np.array_equal(pixels("base.png"), pixels("sharp.png"))
    for folder, ending in ((runs, ""), (here, ".gencomp")):
        words = [str(folder / f"base{ending}"), "a.gcp", f"half{ending}.png"]
        toward = ["--toward", str(folder / f"sharp{ending}"), "--share", "0.25"]
        assert main(["decompress", *words, *toward]) == 0
    assert np.array_equal(pixels("half.png"), pixels("half.gencomp.png"))


def test_python_writes_and_reads_the_same_files(runs: Path, here: Path) -> None:
    assert main(["export", str(runs / "codec"), "m.gencomp"]) == 0
    assert main(["compress", "m.gencomp", "photo.png", "a.gcp"]) == 0
    assert main(["decompress", "m.gencomp", "a.gcp", "a.png"]) == 0
    model, stream = gencomp.load("m.gencomp"), Path("a.gcp").read_bytes()
    random = torch.get_rng_state()
    assert model.compress("photo.png") == stream
    assert torch.equal(torch.get_rng_state(), random)  # that of the caller stays as it is
    assert np.array_equal(model.decompress(stream), pixels("a.png"))
    image_HWC = pixels("photo.png")
    assert model.compress(image_HWC) == model.compress(Image.fromarray(image_HWC))
    assert not np.array_equal(model.decompress(stream, draw=1), model.decompress(stream))

    grey = Image.fromarray(image_HWC).convert("L")
    grey.save("grey.png")
    grey_HWC = np.repeat(np.asarray(grey)[..., None], 3, axis=2)
    assert model.compress(grey) == model.compress(grey_HWC)
    Image.fromarray(image_HWC).convert("RGBA").save("clear.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(image_HWC).save("turned.jpg", exif=exif)
    for image, said in (
        (image_HWC.astype(np.float32), "RGB images of 8 bits, not float32"),
        (image_HWC[..., 0], "RGB images of 8 bits, not uint8 of shape 70×90"),
        ("clear.png", "clear.png is transparent: convert it first"),
        ("turned.jpg", "turned.jpg has an orientation tag: turn it first"),
        ("a.gcp", "a.gcp is not a readable image"),
        ("nowhere.png", "nowhere.png cannot be read: No such file"),
        (7, "an image is an array, a PIL image or a path, not int"),
    ):
        with pytest.raises(InputError, match=said):
            model.compress(image)  # type: ignore[arg-type]


def test_maps_and_values_of_writing_in_python(runs: Path, here: Path) -> None:
    assert main(["export", str(runs / "selective"), "m.gencomp"]) == 0
    chosen, given = ["--codec.keep", "[1, 2]"], ["label=label.png", "instance=instance.png"]
    words = ["compress", "m.gencomp", "scene.png", "a.gcp", *chosen, "--maps", *given]
    assert main(words) == 0
    maps = {name: pixels(f"{name}.png") for name in ("label", "instance")}
    model = gencomp.load("m.gencomp", {"codec.keep": [1, 2]})
    assert model.compress("scene.png", maps) == Path("a.gcp").read_bytes()
    assert model.card.maps == ("label", "instance", "mask")
    with pytest.raises(InputError, match=r"only codec\.keep"):
        gencomp.load("m.gencomp", {"networks.width": 9})


def test_the_card_and_the_zoo(
    runs: Path, here: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """What was measured is in the card, and each model is a row with its operating point."""
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    assert main(["export", str(runs / "codec"), "zoo/a.gencomp"]) == 0
    assert main(["export", str(runs / "base"), "zoo/b.gencomp", "--licence", "CC-BY-4.0"]) == 0
    assert main(["export", str(runs / "exact"), "zoo/d.gencomp"]) == 0
    capsys.readouterr()
    assert main(["models", "zoo"]) == 0
    first, second, exact = capsys.readouterr().out.splitlines()[2:]
    assert first.split()[:3] == ["a.gencomp", "dplc/codec", "0.007812"]
    assert "photos, 12 images" in first and "not stated" in first
    assert second.split()[:2] == ["b.gencomp", "urdp/end_to_end"] and "CC-BY-4.0" in second
    # Training measures a PSNR of this one too, which is of no image that its files hold.
    assert exact.split()[:6] == ["d.gencomp", "irec/rvae", "–", "–", "lossless", "lossless"]
    assert "lossless" not in first + second

    assert main(["models", "zoo/a.gencomp"]) == 0
    said = capsys.readouterr().out
    for words in ("dplc/codec, 12 steps", "split train", "gencomp train (codec)", "  psnr  "):
        assert words in said
    assert "gencomp compress zoo/a.gencomp IMAGE.png OUT.gcp" in said

    (zoo / "c.gencomp").write_bytes(b"nothing")
    assert main(["models", "zoo"]) == 1
    found = capsys.readouterr()
    assert len(found.out.splitlines()) == 5 and "c.gencomp cannot be read as a model" in found.err


def test_results_of_these_weights_are_in_the_card(
    runs: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of other weights and those that are not complete are left out, and so are places."""
    shutil.copytree(runs / "codec", "own")
    assert main(["files", "own", "--images", "4", "--processes", "1"]) == 0
    measured = json.loads(Path("own/evaluations/files/rates.json").read_text(encoding="utf-8"))
    places = {key: f"{here}/{key}" for key in (*metrics.Plan.LOCATIONS, *files.Plan.LOCATIONS)}
    assert {"shards", "features_file", "dists_file", "toward"} <= set(places)
    for name, change in (
        ("placed", {"protocol": {**measured["protocol"], **places}}),
        ("other", {"protocol": {**measured["protocol"], "weights": "0" * 32}}),
        ("partial", {"complete": False}),
    ):
        Path(f"own/evaluations/{name}").mkdir()
        said = json.dumps(measured | change)
        Path(f"own/evaluations/{name}/rates.json").write_text(said, encoding="utf-8")
    assert main(["export", "own", "m.gencomp"]) == 0
    results = {one.name: one for one in gencomp.load("m.gencomp").card.results}
    assert set(results) == {"own", "files", "placed"}
    assert not set(places) & set(results["placed"].protocol)
    assert str(here).encode() not in Path("m.gencomp").read_bytes()
    assert results["files"].value("joint_bpp") == measured["metrics"]["joint_bpp"]["value"]
    assert results["files"].protocol["hash"] == measured["protocol"]["hash"]
    capsys.readouterr()
    assert main(["models", "."]) == 0
    assert "photos, test, 4 images" in capsys.readouterr().out

    wrong = {"complete": True, "metrics": {"mse": {"value": "x"}}, "protocol": measured["protocol"]}
    for content in ("{", "[]", json.dumps(wrong)):
        Path("own/evaluations/files/rates.json").write_text(content, encoding="utf-8")
        assert main(["export", "own", "n.gencomp"]) == 2
        assert "rates.json cannot be read as the result" in capsys.readouterr().err


def test_what_export_refuses(runs: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "folder.gencomp").mkdir()
    (here / "full.gencomp").write_bytes(b"something else")
    assert main(["export", str(runs / "codec"), "m.gencomp"]) == 0
    assert main(["export", str(runs / "codec"), "m.gencomp"]) == 0  # it is the same
    capsys.readouterr()
    codec = str(runs / "codec")
    for words, said in (
        (["export", codec, "m.pt"], "m.pt must end in .gencomp"),
        (["export", codec, "no/m.gencomp"], "there is no folder no"),
        (["export", codec, "folder.gencomp"], "folder.gencomp is a folder"),
        (["export", codec, "full.gencomp"], "full.gencomp exists and holds something else"),
        (["export", codec, "n.gencomp", "--checkpoint", "7"], "no checkpoint of step 7"),
        (["export", str(runs / "generator"), "n.gencomp"], "dplc/wae) has no codec"),
        (["export", str(here), "n.gencomp"], "is not a run directory"),
        (["models", "nowhere"], "is neither a model file nor a folder"),
        (["models", str(runs / "codec")], "holds no model files (.gencomp)"),
        (["compress", "m.gencomp", "photo.png", "o.gcp", "--checkpoint", "4"], "a model file, whi"),
        (["compress", "m.gencomp", "photo.png", "o.gcp", "--codec.keep", "1"], "nothing can be"),
        (["decompress", "m.gencomp", "photo.png", "o.png"], "photo.png cannot be decoded"),
    ):
        assert main(words) == 2, words
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1, (words, error)
    assert not Path("n.gencomp").exists() and not Path("o.gcp").exists()
    assert main(["export", codec, "full.gencomp", "--overwrite"]) == 0
    assert Path("full.gencomp").read_bytes() == Path("m.gencomp").read_bytes()


def test_help_lists_how_a_model_writes_files(
    runs: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(runs / "small"), "m.gencomp"]) == 0
    capsys.readouterr()
    assert main(["compress", "m.gencomp", "--help"]) == 0
    assert "--codec.effort fast|balanced|best" in capsys.readouterr().out


def test_an_export_does_not_depend_on_the_process(runs: Path, here: Path) -> None:
    files = []
    for seed in ("0", "1"):
        file = f"{seed}.gencomp"
        words = [sys.executable, "-m", "gencomp.cli", "export", str(runs / "codec"), file]
        environment = {**ENVIRONMENT, "PYTHONHASHSEED": seed}
        subprocess.run(words, env=environment, check=True, stdout=subprocess.DEVNULL)
        files.append(Path(file).read_bytes())
    assert files[0] == files[1]


# The modules that gencomp needs elsewhere, but not to use a model file.
OTHERS = (
    "braceexpand", "fsspec", "lmdb", "matplotlib", "optuna", "packaging", "pyarrow", "ray",
    "scipy", "skimage", "submitit", "tensorboard", "webdataset",
)  # fmt: skip
_WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {others}:
            raise ModuleNotFoundError("No module named " + name, name=name)

sys.meta_path.insert(0, Absent())
import gencomp
from gencomp.cli import main
for words in {commands}:
    if main(words) != 0:
        sys.exit(1)
model = gencomp.load("m.gencomp")
assert model.decompress(model.compress({image!r})).dtype == "uint8"
"""


@pytest.mark.parametrize("name", ["codec", "base", "exact", "conditional"])
def test_a_model_is_used_without_ray(name: str, runs: Path, here: Path) -> None:
    """It needs nothing else of training and evaluations either, and no folder with runs."""
    assert main(["export", str(runs / name), "m.gencomp"]) == 0
    case = next(one for one in CASES if one.run == name)
    commands = [
        ["compress", "m.gencomp", case.image, "a.gcp", *case.words],
        ["decompress", "m.gencomp", "a.gcp", "a.png"],
        ["models", "."],
        ["models", "m.gencomp"],
    ]
    image = case.image
    script = _WITHOUT.format(others=set(OTHERS), commands=commands, image=image)
    if case.words:  # this codec needs maps, which the line of Python does not give
        script = script.rpartition("model = ")[0]
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert Path("a.png").exists()


def test_a_version_that_is_not_known_is_refused(runs: Path, here: Path) -> None:
    assert main(["export", str(runs / "codec"), "m.gencomp"]) == 0
    description, tensors = model_file.read(Path("m.gencomp"))
    newer = description.model_copy(update={"format": 2})
    Path("n.gencomp").write_bytes(model_file.pack(newer, tensors))
    with pytest.raises(InputError, match="format is 2, but it should be 1"):
        gencomp.load("n.gencomp")
