"""One file through many decoders, by the command line: compress, decompress, mix, draw, refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import shards
from cluster.results import tradeoff
from cluster.runs import open_run
from gencomp.cli import main
from gencomp.coding import container
from gencomp.system import Picture
from tests import tiny
from tests.gencomp import vae_cases
from tests.gencomp.systems.urdp.test_training import raw


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an end-to-end run, later stages of it, and a stranger."""
    folder = tmp_path_factory.mktemp("urdp")
    blobs = vae_cases.blobs(folder, side=28)
    tiny.trained(folder / "base", raw("end_to_end", blobs))
    for name, weight in (("sharp", 0.05), ("smooth", 0)):
        overrides = {"loss.perception_weight": weight}
        tiny.trained(folder / name, raw("universal", blobs, folder / "base", **overrides))
    fine = {"code.latents": 2, "code.levels": 4}
    tiny.trained(folder / "fine", raw("refinement", blobs, folder / "base", **fine))
    tiny.trained(folder / "stranger", raw("end_to_end", blobs, **{"training.seed": 5}))
    split = shards.open_set(blobs).split("test")
    (folder / "images").mkdir()
    for row in range(5):
        Image.fromarray(split.read(row).image).save(folder / "images" / f"{row}.png")
    return folder


@pytest.fixture
def here(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("base", "sharp", "smooth", "fine", "stranger", "images"):
        (tmp_path / name).symlink_to(runs / name)
    return tmp_path


def run(words: str) -> int:
    return main(words.split())


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_one_file_and_every_decoder(here: Path) -> None:
    assert run("compress base images digits.gcp --joint") == 0
    shown = []
    for name in ("base", "sharp", "smooth"):
        assert run(f"decompress {name} digits.gcp {name}_out") == 0
        images = [pixels(here / f"{name}_out" / f"{i}.png") for i in range(5)]
        codec = open_run(here / name).system().codec()
        assert codec is not None
        stream = (here / "digits.gcp").read_bytes()
        for place, image in enumerate(images):
            assert np.array_equal(image, codec.decompress(stream, place=place))
        shown.append(np.stack(images).astype(float))
    assert not np.array_equal(shown[1], shown[2])
    assert run("decompress sharp digits.gcp half --toward smooth --share 0.25") == 0
    half = np.stack([pixels(here / "half" / f"{i}.png") for i in range(5)])
    assert np.abs(half - (0.75 * shown[1] + 0.25 * shown[2])).max() <= 1


def test_a_decoder_writes_files_too(here: Path) -> None:
    """The writer of a universal decoder is the encoder of its base, so the code is the same."""
    for name in ("base", "sharp"):
        assert run(f"compress {name} images/0.png {name}.gcp") == 0
    found = [container.unpack((here / f"{name}.gcp").read_bytes()) for name in ("base", "sharp")]
    assert found[0].fingerprint == found[1].fingerprint
    assert found[0].shared == found[1].shared


def test_a_refinement_is_left_out_without_a_run(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("compress fine images whole.gcp --joint") == 0
    assert run("decompress base whole.gcp whole_out") == 0
    assert run("decompress fine whole.gcp fine_out") == 0
    (here / "elsewhere").mkdir()
    shutil.copy(here / "whole.gcp", here / "elsewhere")
    capsys.readouterr()
    assert run("strip elsewhere/whole.gcp cut.gcp") == 0
    said = capsys.readouterr().out
    whole, cut = (here / "whole.gcp").read_bytes(), (here / "cut.gcp").read_bytes()
    layer = container.unpack(whole).shared[2]
    # The base is the last section now, whose length is not written: one byte less.
    assert len(cut) == len(whole) - len(layer) - 1
    assert said == f"cut.gcp: {len(cut)} bytes, without the {len(layer) + 1} of the refinement\n"
    # It is the very file that the run of the base writes.
    assert run("compress base images base.gcp --joint") == 0
    assert (here / "base.gcp").read_bytes() == cut
    assert run("decompress base cut.gcp cut_out") == 0
    differ = 0
    for place in range(5):
        shown = pixels(here / "cut_out" / f"{place}.png")
        assert np.array_equal(shown, pixels(here / "whole_out" / f"{place}.png"))
        differ += not np.array_equal(shown, pixels(here / "fine_out" / f"{place}.png"))
    assert differ
    capsys.readouterr()
    assert run("compress base images/0.png one.gcp") == 0
    (here / "damaged.gcp").write_bytes(whole[:30] + bytes([whole[30] ^ 1]) + whole[31:])
    (here / "short.gcp").write_bytes(whole[: -len(layer)])
    capsys.readouterr()
    for words, why in (
        ("decompress fine cut.gcp out.png --place 0", "holds no refinement, which this decoder"),
        ("strip cut.gcp out.gcp", "cut.gcp cannot be stripped: it holds no refinement"),
        ("strip one.gcp out.gcp", "one.gcp cannot be stripped: it holds no refinement"),
        ("strip damaged.gcp out.gcp", "damaged.gcp cannot be stripped: The container's checksum"),
        ("strip short.gcp out.gcp", "short.gcp cannot be stripped: The container's checksum"),
        ("strip images/0.png out.gcp", "images/0.png cannot be stripped: This is not a gencomp"),
        ("strip nothing.gcp out.gcp", "nothing.gcp does not exist"),
        ("strip whole.gcp cut.gcp", "cut.gcp exists; add --overwrite"),
        ("strip whole.gcp out.png", "out.png is the name of an image"),
    ):
        assert run(words) == 2, words
        error = capsys.readouterr().err
        assert why in error and error.count("\n") == 1, words
    assert not list(here.glob("out*"))
    assert (here / "cut.gcp").read_bytes() == cut


def test_other_pictures_have_other_indices(here: Path) -> None:
    heads = set()
    for row in range(5):
        assert run(f"compress base images/{row}.png {row}.gcp") == 0
        heads.add(container.unpack((here / f"{row}.gcp").read_bytes()).shared[0])
    assert len(heads) == 5
    first = (here / "0.gcp").read_bytes()
    assert run("compress base images/0.png 0.gcp --overwrite") == 0
    assert (here / "0.gcp").read_bytes() == first


def test_figures(here: Path) -> None:
    assert run("compress base images digits.gcp --joint") == 0
    assert run("figure choice digits.gcp base sharp smooth --out choice.png --images 3") == 0
    assert run("figure tradeoff base sharp smooth --out tradeoff.png") == 0
    assert run("figure gaussian --out gaussian.pdf --rates 0.5 1") == 0
    for name in ("choice.png", "tradeoff.png"):
        assert min(Image.open(here / name).size) > 100
    assert (here / "gaussian.pdf").read_bytes().startswith(b"%PDF")


def test_files_state_the_entropy_of_every_latent(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(here / "base", here / "own")
    assert run("files own --images 8 --processes 1") == 0
    out = capsys.readouterr().out
    rates = json.loads((here / "own/evaluations/files/rates.json").read_text())
    (layer,) = rates["symbols"]
    system = open_run(here / "own").system()
    assert layer == {"levels": 3, "bits": list(system.symbols()[0].bits_K)}
    assert len(layer["bits"]) == 3 and 0 < sum(layer["bits"]) < 3 * np.log2(3)
    for bits in (*layer["bits"], sum(layer["bits"]), np.log2(3), 3 * np.log2(3)):
        assert f"{bits:.4f}" in out
    assert "given what sender and receiver share" in out


def test_a_distance_without_a_network_has_an_axis_too(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is what `gencomp evaluate` has measured, by one protocol."""
    for name, images in (("sharp", 8), ("smooth", 8), ("stranger", 6)):
        (here / name).unlink()
        shutil.copytree(Path(here / "base").resolve().parent / name, here / name)
        assert run(f"evaluate {name} --metrics swd --images {images} --processes 1") == 0
    assert run("figure tradeoff sharp smooth --perception swd --out swd.png") == 0
    points = tradeoff.points([here / "sharp", here / "smooth"], "mse_unit", "swd")
    metrics = json.loads((here / "sharp/evaluations/metrics/metrics.json").read_text())["metrics"]
    assert points[0].y == metrics["swd"]["value"] and points[0].y_interval
    capsys.readouterr()
    assert run("figure tradeoff sharp stranger --perception swd --out other.png") == 2
    assert "cannot stand in one axis" in capsys.readouterr().err
    assert run("figure tradeoff base sharp --perception swd --out other.png") == 2
    assert "base has no swd" in capsys.readouterr().err


def test_a_point_between_two_decoders_is_measured(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is what the files of the held-out images decode to, at both ends one of the decoders."""
    for name in ("sharp", "smooth"):
        (here / name).unlink()
        shutil.copytree(Path(here / "base").resolve().parent / name, here / name)
    words = "evaluate sharp --metrics mse,swd --images 8 --reconstructions files"
    assert run(f"{words} --toward smooth --share 0.25 --name between") == 0
    assert "images between its decoder and that of smooth, share 0.25" in capsys.readouterr().out
    path = here / "sharp/evaluations/between/metrics.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    settings = found["protocol"]["settings"]
    codec = open_run(here / "sharp").system().mixed_codec(open_run(here / "smooth").system(), 0.25)
    split = shards.open_set(found["protocol"]["shards"]).split(settings["split"])
    errors = []
    for i in range(8):
        row = i * len(split) // 8
        image = split.read(row).image
        shown = codec.decompress(codec.compress(Picture(image, index=row)))
        errors.append(np.square((image.astype(float) - shown) / 127.5).mean())
    assert found["metrics"]["mse"]["value"] == pytest.approx(np.mean(errors), rel=1e-12)
    assert found["protocol"]["reader"] == codec.reader_fingerprint.hex()

    ends = {}
    for name, more in (("first", "--toward smooth --share 0"), ("alone", "")):
        assert run(f"{words} {more} --name {name}") == 0
        content = (here / f"sharp/evaluations/{name}/metrics.json").read_text(encoding="utf-8")
        ends[name] = json.loads(content)["metrics"]
    assert ends["first"] == ends["alone"]
    capsys.readouterr()
    for more, said in (
        ("--toward smooth --share 0.3 --name between", "share was 0.25, would be 0.3"),
        ("--toward smooth", "--toward and --share need each other"),
        ("--share 0.5", "--toward and --share need each other"),
        ("--toward stranger --share 0.5", "have decoders of different encoders"),
        ("--toward smooth --share 2", "--share is 2.0, but it should be"),
    ):
        assert run(f"{words} {more}") == 2
        assert said in capsys.readouterr().err, more
    assert run("evaluate sharp --toward smooth --share 0.5 --name other") == 2
    assert "it needs --reconstructions files" in capsys.readouterr().err


def test_what_shared_bits_cost(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("figure shared-bits base stranger --out bits.png") == 0
    assert min(Image.open(here / "bits.png").size) > 100
    capsys.readouterr()
    assert run("figure shared-bits base --at 0 --out none.png --perception mse_unit") == 2
    assert "no run has a mse_unit of 0 or less" in capsys.readouterr().err
    assert run("figure shared-bits sharp smooth --out universal.png") == 0


def test_refusals(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("compress base images digits.gcp --joint") == 0
    colour = np.zeros((28, 28, 3), np.uint8)
    colour[5:20, 5:20, 0] = 200
    Image.fromarray(colour).save(here / "colour.png")
    Image.new("RGB", (30, 28)).save(here / "wide.png")
    shutil.copy(here / "images/0.png", here / "again.png")
    capsys.readouterr()
    for words, said in (
        ("decompress stranger digits.gcp out", "cannot be decoded by the codec urdp"),
        ("decompress base digits.gcp out --toward stranger", "decoders of different encoders"),
        ("decompress base digits.gcp out --toward sharp --share 1.5", "--share is 1.5"),
        ("compress base colour.png x.gcp", "takes grey images, not one in colour"),
        ("compress base wide.png x.gcp", "28×28 pixels, not uint8 of shape 28×30×3"),
        ("figure choice digits.gcp stranger --out x.png", "cannot be decoded by the codec urdp"),
        ("figure tradeoff base --out x.png --perception none", "has no none; it has"),
        ("figure gaussian --out x.png --rates 0", "each above 0"),
    ):
        assert run(words) == 2, words
        assert said in capsys.readouterr().err, words
    assert not (here / "out").exists() and not (here / "x.gcp").exists()
