"""Files by relative entropy coding and by bits-back, by the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import shards
from cluster.runs import open_run
from gencomp import recipes
from gencomp.cli import main
from gencomp.coding import container
from gencomp.report.markup import number
from gencomp.system import Picture
from tests import tiny
from tests.gencomp import irec_cases
from tests.gencomp.irec_cases import NARROW, RECIPES
from tests.html_pages import assert_self_contained

SHORT: dict[str, Any] = {
    "data.batch_size": 8,
    "training.epochs": None,
    "training.steps": 12,
    "training.checkpoint_every": 12,
    "training.sample_every": 12,
    "optimizer.learning_rate": 5e-3,
    "optimizer.decay_epochs": [],
    "evaluation.every": 12,
    "evaluation.batch_size": 4,
    "evaluation.limit": 4,
    "evaluation.transforms": {},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a lossless run, a lossy one, a stranger, and images of any sizes."""
    folder = tmp_path_factory.mktemp("irec")
    waves = irec_cases.shard_set(folder)
    for name, stage, more in (
        ("exact", "rvae", {}),
        ("small", "one_level", {}),
        ("stranger", "one_level", {"training.seed": 9}),
    ):
        overrides = {**NARROW[stage], **SHORT, "data.shards": str(waves), **more}
        raw = recipes.with_overrides(recipes.read(RECIPES[stage]), overrides)
        tiny.trained(folder / name, raw)
    split = shards.open_set(waves).split("test")
    (folder / "pictures" / "below").mkdir(parents=True)
    for row in range(4):
        image = Image.fromarray(split.read(row).image[: 20 + row, : 31 - 3 * row])
        image.save(folder / "pictures" / ("below" if row == 3 else "") / f"{row}.png")
    return folder


@pytest.fixture
def here(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("exact", "small", "stranger", "pictures"):
        (tmp_path / name).symlink_to(runs / name)
    return tmp_path


def run(words: str) -> int:
    return main(words.split())


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def same(folder: Path, decoded: Path) -> bool:
    names = [path.relative_to(folder) for path in folder.rglob("*.png")]
    assert len(names) == 4
    return all(np.array_equal(pixels(folder / name), pixels(decoded / name)) for name in names)


def test_lossless_files_by_both_coders(here: Path) -> None:
    """One run reads the files of both, whichever it would write itself."""
    assert run("compress exact pictures/0.png a.gcp") == 0
    assert run("compress exact pictures/0.png b.gcp --codec.coder bits_back") == 0
    assert run("compress exact pictures/0.png c.gcp --codec.effort=best --codec.beams 3") == 0
    streams = [(here / f"{name}.gcp").read_bytes() for name in "abc"]
    assert len(set(streams)) == 3
    for name in "abc":
        assert run(f"decompress exact {name}.gcp {name}.png") == 0
        assert np.array_equal(pixels(here / f"{name}.png"), pixels(here / "pictures/0.png"))


@pytest.mark.parametrize("coder", ["relative_entropy", "bits_back"])
def test_folders_and_joint_files(
    here: Path, coder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(f"compress exact pictures files --processes 2 --codec.coder {coder}") == 0
    assert run("decompress exact files back") == 0
    assert same(here / "pictures", here / "back")
    capsys.readouterr()
    assert run(f"compress exact pictures files --codec.coder {coder}") == 0
    assert "4" in capsys.readouterr().out.splitlines()[-1].split()  # all of them are kept
    assert run(f"compress exact pictures joint.gcp --joint --codec.coder {coder}") == 0
    assert run("decompress exact joint.gcp all") == 0
    names = sorted(path for path in (here / "pictures").rglob("*.png"))
    for place, name in enumerate(names):
        assert np.array_equal(pixels(here / f"all/{place}.png"), pixels(name))
    alone = sum(path.stat().st_size for path in (here / "files").rglob("*.gcp"))
    assert (here / "joint.gcp").stat().st_size < alone


def test_lossy_files(here: Path) -> None:
    assert run("compress small pictures files --codec.effort fast") == 0
    assert run("decompress small files shown") == 0
    codec = open_run(here / "small", writing=["--codec.effort=fast"]).system().codec()
    assert codec is not None
    for path in (here / "pictures").rglob("*.png"):
        name = path.relative_to(here / "pictures")
        expected = codec.reconstruct(Picture(pixels(path)))
        assert np.array_equal(pixels(here / "shown" / name), expected)


def test_files_are_measured(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bits per dimension beside the bound and PNG, also by the other coder."""
    found = {}
    for name, more in (("re", ""), ("bb", "--codec.coder bits_back")):
        words = f"files exact --images 4 --block 2 --name {name} --lossless png webp {more}"
        assert run(words) == 0
        said = capsys.readouterr().out
        assert "joint_file_bpd" in said and "png_bpd" in said and "bits per colour value" in said
        path = here / f"exact/evaluations/{name}"
        found[name] = json.loads((path / "rates.json").read_text())["metrics"]
        plan = json.loads((path / "files.json").read_text())
        assert plan["written"]["codec.coder"] == ("bits_back" if more else None)
        assert run(words) == 0  # which finds everything done
    for metrics in found.values():
        for rate in ("bpd", "file_bpd", "ideal_bpd"):
            assert metrics[rate]["value"] == pytest.approx(
                metrics[rate.replace("bpd", "bpp")]["value"] / 3
            )
        assert metrics["mse"]["value"] == 0
        assert 0.9 * metrics["ideal_bpd"]["value"] < metrics["bpd"]["value"]
        assert metrics["bpd"]["value"] < metrics["file_bpd"]["value"]
        assert metrics["joint_png_bpd"]["value"] < metrics["png_bpd"]["value"]
    assert found["re"]["png_bpd"] == found["bb"]["png_bpd"]
    assert found["bb"]["joint_bpd"]["value"] < found["bb"]["bpd"]["value"]
    capsys.readouterr()
    assert run("files exact --images 4 --block 2 --name re --codec.effort best") == 2
    assert "holds another evaluation: written was" in capsys.readouterr().err


def test_the_report_compares_lossless_files(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("files exact --images 3 --name told --lossless png webp") == 0
    assert run("files exact --images 3 --name chained --codec.coder bits_back") == 0
    assert run("files exact --images 2 --name fewer") == 0
    assert run("files small --images 3 --name lossy") == 0
    told, chained = (f"exact/evaluations/{name}" for name in ("told", "chained"))
    assert run(f"report --lossless {told} {chained} --out page.html") == 0
    html = (here / "page.html").read_text(encoding="utf-8")
    words = assert_self_contained(html).text
    assert "files without loss" in words and "No generator run was given" not in words
    rates = {
        name: json.loads((here / name / "rates.json").read_text(encoding="utf-8"))["metrics"]
        for name in (told, chained)
    }
    for name, metrics in rates.items():
        for key in ("ideal_bpd", "bpd", "file_bpd", "joint_file_bpd"):
            assert number(metrics[key]["value"]) in words, (name, key)
        best = min(metrics[key]["value"] for key in ("file_bpd", "joint_file_bpd"))
        assert (
            f"{100 * (best / metrics['ideal_bpd']['value'] - 1):.1f} %".replace("-", "−") in words
        )
        assert name in words
    for key in ("png_bpd", "joint_png_bpd", "webp_bpd", "joint_webp_bpd"):
        assert number(rates[told][key]["value"]) in words
    assert "exact, coder bits_back" in words and "test split, 3 of" in words
    assert html.count("<svg") == 1
    capsys.readouterr()

    for second, said in (
        ("exact/evaluations/fewer", "are of different pictures"),
        ("small/evaluations/lossy", "is of files that lose something"),
        ("exact", "has no rates.json: name directories of `gencomp files`"),
    ):
        assert run(f"report --lossless {told} {second} --out other.html") == 2
        assert said in capsys.readouterr().err
    assert not (here / "other.html").exists()


def test_reconstructions_from_files(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "evaluate small --images 4 --metrics mse,psnr --reconstructions files"
    assert run(f"{words} --codec.effort fast") == 0
    assert run(words) == 2
    assert "written was" in capsys.readouterr().err
    assert run("evaluate small --images 4 --metrics mse --codec.effort fast --name x") == 2
    assert "it needs --reconstructions files" in capsys.readouterr().err


def test_refusals(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("compress small pictures/0.png a.gcp") == 0
    assert run("compress exact pictures/0.png b.gcp") == 0
    data = bytearray((here / "b.gcp").read_bytes())
    data[len(data) // 2] ^= 1
    (here / "bad.gcp").write_bytes(bytes(data))
    capsys.readouterr()
    for words, said in (
        ("compress small pictures/0.png x.gcp --codec.coder bits_back", "cannot give bits back"),
        ("compress small pictures/0.png x.gcp --codec.coder zip", "codec.coder is 'zip'"),
        ("compress small pictures/0.png x.gcp --codec.effort", "--codec.effort needs a value"),
        ("compress small pictures/0.png x.gcp --codec.beams 0", "codec.beams is 0, but"),
        ("compress small pictures/0.png x.gcp --codec.efort best", "--codec.efort cannot be set"),
        ("compress small pictures/0.png x.gcp --codec.omega 0.1", "0.1 nats"),
        ("decompress stranger a.gcp x.png", "a.gcp was written by the encoder"),
        ("decompress exact bad.gcp x.png", "bad.gcp cannot be decoded: The container's checksum"),
        ("decompress exact b.gcp x.png --max-pixels 10", "more than the limit of 10"),
        ("files small --images 4 --codec.coder universal", "coded by relative_entropy"),
    ):
        assert run(words) == 2, words
        error = capsys.readouterr().err
        assert said in error and len(error.strip().splitlines()) == 1, (words, error)
    assert not (here / "x.gcp").exists() and not (here / "x.png").exists()


def test_help_lists_the_keys(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ("compress small --help", "files exact --help", "evaluate small --help"):
        assert run(words) == 0
        said = capsys.readouterr().out
        assert "--codec.effort fast|balanced|best" in said and "--codec.coder" in said
        assert "--training" not in said
    assert run("compress --help") == 0


def test_a_container_of_a_small_image(here: Path) -> None:
    """15 bytes stand around the code of a lossless picture, its hash included."""
    assert run("compress exact pictures/0.png a.gcp") == 0
    data = (here / "a.gcp").read_bytes()
    found = container.unpack(data)
    assert found.is_exact and len(data) - found.code_bytes == 15


def test_overhead_of_a_run_s_own_blocks(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = "--omegas 3 --oversamplings 0.1 --beams 2 --blocks 2 --keys 1 --out x.png"
    assert run(f"figure overhead --run exact --images 2 {grid}") == 0
    said = capsys.readouterr().out
    assert "exact:" in said and "D 32, 60 nats:" in said
    assert min(Image.open(here / "x.png").size) > 100
