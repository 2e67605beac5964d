"""Files with label maps and with chosen regions, by the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import shards
from cluster.results import file_parts, generators
from cluster.runs import open_run
from gencomp import recipes
from gencomp.cli import main
from gencomp.coding import container
from gencomp.system import Picture
from sweeps.report.codec_files import through_files
from tests import scripted, tiny
from tests.gencomp import gan_cases
from tests.gencomp.gan_cases import RECIPES

SHORT: dict[str, Any] = {
    "data.batch_size": 2,
    "data.transforms": {"crop": [64, 64]},
    "training.steps": 2,
    "training.checkpoint_every": 2,
    "training.sample_every": 2,
    "evaluation.every": 2,
    "evaluation.split": "val",
    "evaluation.transforms": {},
    "evaluation.limit": 2,
}
SELECTIVE = {
    "data.maps": ["label", "instance"],
    "labels.instances": "instance",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of each mode, and images with maps of labels, instances and masks."""
    folder = tmp_path_factory.mktemp("gan")
    shapes = gan_cases.shard_set(folder, train=8, test=3)
    for mode in gan_cases.MODES:
        more = SELECTIVE if mode == "selective" else {}
        overrides = {**gan_cases.overrides(mode), **SHORT, "data.shards": str(shapes), **more}
        raw = recipes.with_overrides(recipes.read(RECIPES[mode]), overrides)
        tiny.trained(folder / mode, raw)
    images, labels, instances = gan_cases.scenes(3, 50, 70, seed=5)
    masks = np.zeros((3, 50, 70), np.uint8)
    masks[:, 10:20, 30:40] = 255
    maps = {"labels": labels, "instances": instances, "masks": masks}
    for number, image in enumerate(images):
        below = "below/" if number == 2 else ""
        for kind, one in {"images": image, **{k: v[number] for k, v in maps.items()}}.items():
            ending = "bmp" if kind == "images" and number else "png"
            path = folder / kind / f"{below}{number}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(one).save(path)
    return folder


@pytest.fixture
def here(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for path in runs.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pixels(path: str) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_an_image_with_its_labels(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The parts are printed, and the decoded image is what the codec promises."""
    words = ["compress", "conditional", "images/0.png", "a.gcp", "--maps", "label=labels/0.png"]
    assert main(words) == 0
    stream = (here / "a.gcp").read_bytes()
    labels, latents = (8 * len(one) for one in container.unpack(stream).members[0].sections)
    said = capsys.readouterr().out
    assert said.startswith(f"a.gcp: {len(stream)} bytes = {labels + latents} bits of code (")
    assert f" bpp: {labels} of labels, {latents} of latents; latents nominal " in said

    assert main(["decompress", "conditional", "a.gcp", "a.png"]) == 0
    codec = open_run("conditional").system().codec()
    assert codec is not None
    picture = Picture(pixels("images/0.png"), {"label": pixels("labels/0.png")})
    assert np.array_equal(pixels("a.png"), codec.reconstruct(picture))


def test_without_maps_where_none_are_sent(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for mode in ("global", "global_plus"):
        assert main(["compress", mode, "images/0.png", f"{mode}.gcp"]) == 0
        assert " of labels" not in capsys.readouterr().out
        assert main(["decompress", mode, f"{mode}.gcp", f"{mode}.png"]) == 0


def test_a_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Maps lie in folders of the same names, whatever the images' format; also in one file."""
    words = ["compress", "conditional", "images", "out", "--maps", "label=labels"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "of labels" in said and "of latents" in said
    names = sorted(str(path.relative_to("out")) for path in Path("out").rglob("*.gcp"))
    assert names == ["0.png.gcp", "1.bmp.gcp", "below/2.bmp.gcp"]
    assert main(["decompress", "conditional", "out", "shown"]) == 0
    assert main([*words[:3], "all.gcp", "--joint", *words[4:]]) == 0
    assert main(["decompress", "conditional", "all.gcp", "together"]) == 0
    for number, name in enumerate(("0.png", "1.bmp.png", "below/2.bmp.png")):
        assert np.array_equal(pixels(f"shown/{name}"), pixels(f"together/{number}.png"))


def test_chosen_regions(here: Path) -> None:
    """Classes by name, instances, a box and a mask: each keeps other latents."""
    maps = ["label=labels/0.png", "instance=instances/0.png"]
    instance = str(pixels("instances/0.png").max())
    sizes, seen = {}, set()
    for name, more in {
        "nothing": ["--codec.keep", "[]"],
        "classes": ["--codec.keep", "disc,2"],
        "instance": ["--codec.keep_instances", instance],
        "box": ["--codec.keep_box", "8,8,24,16"],
        "mask": ["mask"],
        "everything": ["--codec.keep=ground,disc,bar,square"],
    }.items():
        given = [*maps, "mask=masks/0.png"] if more == ["mask"] else maps
        chosen = [] if more == ["mask"] else more
        words = ["compress", "selective", "images/0.png", f"{name}.gcp", *chosen, "--maps", *given]
        assert main(words) == 0, name
        assert main(["decompress", "selective", f"{name}.gcp", f"{name}.png"]) == 0
        sections = container.unpack(Path(f"{name}.gcp").read_bytes()).members[0].sections
        seen.add(sections[2:])
        sizes[name] = len(sections[-1])
    assert len(seen) == 6
    assert sizes["nothing"] == 0 < sizes["mask"] < sizes["everything"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["conditional", "images/0.png"], "it has no map label, which this codec needs: give it"),
        (
            ["conditional", "images/0.png", "--maps", "label=labels/9.png"],
            "the map label of images/0.png is missing: there is no labels/9.png",
        ),
        (
            ["conditional", "images/0.png", "--maps", "lable=labels/0.png"],
            "--maps names the map lable, but this codec uses label",
        ),
        (
            ["global_plus", "images/0.png", "--maps", "label=labels/0.png"],
            "--maps names the map label, but this codec uses none",
        ),
        (
            ["conditional", "images/0.png", "other/0.png", "--maps", "label=labels"],
            "images/0.png and other/0.png would both have the map labels/0.png",
        ),
        (
            ["conditional", "images/0.png", "--maps", "label=images/0.png"],
            "images/0.png is not a readable map of ids: its mode is RGB",
        ),
        (
            ["conditional", "images/0.png", "--maps", "label=small.png"],
            "its map label has uint8 values of shape 2×3, but ids of 50×70 pixels are needed",
        ),
        (["conditional", "images/0.png", "--maps", "labels/0.png"], "is not NAME=PATH"),
        (
            ["conditional", "images/0.png", "images/1.bmp", "--maps", "label=labels/0.png"],
            "--maps label=labels/0.png is not a folder, but many images need a folder of maps",
        ),
        (
            ["conditional", "turned.jpg", "--maps", "label=labels/0.png"],
            "turned.jpg has an orientation tag, which turns it away from its maps",
        ),
        (
            ["selective", "images/0.png", "--maps", "label=labels", "instance=instances"],
            "say which regions to keep: --codec.keep CLASSES",
        ),
        (
            ["selective", "images/0.png", "--codec.keep=lamp", "--maps", "label=labels"],
            "names the class lamp, but a class is a number from 0 to 3 or one of ground, disc",
        ),
        (
            ["selective", "images/0.png", "--codec.keep_box=1,2,3", "--maps", "label=labels"],
            "codec.keep_box",
        ),
        (["conditional", "images/0.png", "--codec.keep=1"], "only files of mode selective"),
    ],
)
def test_refusals(
    here: Path, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("L", (3, 2)).save("small.png")
    Path("other").mkdir()
    Image.open("images/0.png").save("other/0.png")
    turned, tag = Image.open("images/0.png"), Image.Exif()
    tag[0x0112] = 3
    turned.save("turned.jpg", exif=tag)
    options = [word for word in words if word.startswith("--")]
    at = words.index(options[0]) if options else len(words)
    if words[0] == "selective" and "instance=instances" not in words and "--maps" in words:
        words = [*words, "instance=instances"]
    assert main(["compress", *words[:at], "o.gcp", *words[at:]]) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1
    assert not Path("o.gcp").exists()


def test_files_of_a_split_are_measured_by_part(here: Path) -> None:
    # Where nothing is said of what to keep, nothing is written, and the right words work after it.
    words = ["files", "selective", "--split", "val", "--images", "2"]
    assert main(words) == 2 and not Path("selective/evaluations/files").exists()
    assert main([*words, "--codec.keep", "disc"]) == 0
    assert main(["files", "conditional", "--split", "val", "--images", "2"]) == 0
    (found,) = Path("conditional/evaluations").glob("*/rates.json")
    metrics = json.loads(found.read_text())["metrics"]
    parts = [metrics[f"{part}_bpp"]["value"] for part in ("labels", "latents")]
    assert sum(parts) == pytest.approx(metrics["bpp"]["value"])


def test_a_figure_of_the_rate_by_part(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs, and measurements of one run that kept several things, of the same pictures alone."""
    chosen = ["--split", "val", "--images", "2"]
    for run, name, more in (
        ("global", "parts", []),
        ("conditional", "parts", []),
        ("selective", "parts", ["--codec.keep", "disc"]),
        ("selective", "nothing", ["--codec.keep", "[]"]),
    ):
        assert main(["files", run, "--name", name, *chosen, *more]) == 0
    nothing = "selective/evaluations/nothing"
    words = ["figure", "parts", "global", "conditional", "selective", nothing, "--files", "parts"]
    assert main([*words, "--out", "parts.png"]) == 0
    assert pixels("parts.png").shape[1] > 1000

    results = [Path(one) for one in ("global", "conditional", "selective", nothing)]
    found, pictures = file_parts.read(results, "parts")
    assert [list(one.bpp) for one in found] == [
        ["latents", "container"],
        ["labels", "latents", "container"],
        *2 * [["labels", "instances", "mask", "latents", "container"]],
    ]
    for one in found:
        assert sum(one.bpp.values()) == pytest.approx(one.file.value) and one.images == 2
        assert min(one.bpp.values()) >= 0
    assert "keep disc" in found[2].name and "keep nothing" in found[3].name
    assert found[3].bpp["latents"] == 0 < found[2].bpp["latents"]
    assert "val split, 2 of 3 images" in pictures

    assert main(["files", "global", "--name", "other", "--split", "val", "--images", "3"]) == 0
    capsys.readouterr()
    other = ["figure", "parts", "conditional/evaluations/parts", "global/evaluations/other"]
    assert main([*other, "--out", "other.png"]) == 2
    assert "are of different pictures" in capsys.readouterr().err
    assert main(["figure", "parts", "global", "--files", "none", "--out", "other.png"]) == 2
    assert "run global has no measured rates: `gencomp files" in capsys.readouterr().err


def test_the_report_shows_the_rate_by_part(here: Path) -> None:
    if not Path("conditional/evaluations/files").exists():
        assert main(["files", "conditional", "--split", "val", "--images", "2"]) == 0
    words = ["report", "--generator", "conditional", "--images", "2", "--out", "parts.html"]
    assert main(words) == 0
    page = Path("parts.html").read_text(encoding="utf-8")
    assert "Rate by part" in page and "label map" in page


def test_a_figure_of_an_image_and_its_files(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    maps = ["--maps", "label=labels/0.png", "instance=instances/0.png"]
    for name, keep in (("none", "[]"), ("all", "0,1,2,3")):
        words = ["compress", "selective", "images/0.png", f"{name}.gcp", "--codec.keep", keep]
        assert main([*words, *maps]) == 0
    drawn = ["figure", "comparison", "selective", "images/0.png", "none.gcp", "all.gcp"]
    assert main([*drawn, *maps, "--out", "drawn.png"]) == 0
    found_HWC = pixels("drawn.png")
    # Five tiles of 50×70 pixels: the image, two maps, and what two files decode to.
    assert found_HWC.shape[0] > 50 and found_HWC.shape[1] > 5 * 70

    capsys.readouterr()
    assert main([*drawn[:3], "images/1.bmp", "none.gcp", "--out", "x.png", "--scale", "0"]) == 2
    Image.new("RGB", (9, 9)).save("other.png")
    assert main([*drawn[:3], "other.png", "none.gcp", "--out", "x.png"]) == 2
    said = capsys.readouterr().err
    assert "--scale must be at least 1" in said
    assert "none.gcp holds a picture of 50×70 pixels, but other.png has 9×9" in said
    more = ["images/1.bmp", "two.gcp", "--maps", "label=labels", "instance=instances"]
    assert main(["compress", "selective", "images/0.png", *more, "--codec.keep", "0"]) == 0
    for words, sentence in (
        ([], "name at least one compressed FILE"),
        (["two.gcp"], "two.gcp holds 2 pictures"),
        (["none.gcp", "--maps", "label=other.png"], "other.png is not a readable map"),
    ):
        assert main([*drawn[:4], *words, "--out", "x.png"]) == 2
        assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["conditional", "selective"])
def test_a_report_shows_a_run_that_uses_maps(here: Path, mode: str) -> None:
    """Maps may have 16 bits, as those of instances do."""
    assert main(["report", "--generator", mode, "--images", "2", "--out", "page.html"]) == 0
    assert "reconstructions" in Path("page.html").read_text(encoding="utf-8").lower()


def test_codecs_get_pictures_with_their_maps(here: Path) -> None:
    run = open_run("conditional")
    shard_set = shards.open_set(run.recipe().data.shards)
    originals = generators.read_originals(run, shard_set, 2)
    codec = run.system().codec()
    assert codec is not None
    decoded = through_files(codec, originals.pictures)
    for one, found_HWC in zip(originals.pictures, decoded.images, strict=True):
        assert np.array_equal(found_HWC, codec.reconstruct(one))


def iou(labels_NHW: np.ndarray, images_NHWC: np.ndarray) -> float:
    """The mean intersection over union by nearest colours, class by class."""
    far_NHWK = np.square(images_NHWC[..., None, :] - np.array(gan_cases.COLOURS, float)).sum(-1)
    seen_NHW = far_NHWK.argmin(-1)
    found = []
    for k in np.unique(labels_NHW):
        both, either = (labels_NHW == k) & (seen_NHW == k), (labels_NHW == k) | (seen_NHW == k)
        found.append(both.sum() / either.sum())
    return float(np.mean(found))


def test_what_a_segmentation_network_finds(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It finds it for a run whose method uses no labels, and in what real files decode to."""
    network = scripted.nearest_colour(here, gan_cases.COLOURS)
    words = ["evaluate", "global", "--split", "val", "--metrics", "miou", "--name", "seen"]
    given = ["--segmentation", str(network.path), "--segmentation-sha256", network.sha256]
    assert main([*words, *given, "--reconstructions", "files"]) == 0
    run = open_run("global")
    split = shards.open_set(run.recipe().data.shards).split("val")
    samples = [split.read(row) for row in range(len(split))]
    labels_NHW = np.stack([one.maps["label"] for one in samples])
    codec = run.system().codec()
    assert codec is not None
    shown = [codec.reconstruct(Picture(one.image)) for one in samples]
    metrics = json.loads(Path("global/evaluations/seen/metrics.json").read_text(encoding="utf-8"))[
        "metrics"
    ]
    for name, images in (("miou", shown), ("miou_images", [one.image for one in samples])):
        expected = iou(labels_NHW, np.stack(images))
        assert metrics[name]["value"] == pytest.approx(expected)
        assert metrics[name]["images"] == len(samples)
        low, high = metrics[name]["interval"]
        assert 0 <= low <= expected <= high <= 1
    assert metrics["miou_images"]["value"] > 0.9 > metrics["miou"]["value"]

    capsys.readouterr()
    for more, sentence in (
        ([], "--metrics miou needs a network: name it by --segmentation"),
        ([*given, "--label-map", "depth"], "has no map 'depth'"),
    ):
        assert main([*words[:-1], "other", *more]) == 2
        assert sentence in capsys.readouterr().err
