"""`gencomp shards ...` end to end: what is printed, what is written, what is refused."""

from __future__ import annotations

import inspect
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from gencomp.cli import main
from gencomp.cli.console import Rate, duration, progress
from gencomp.cli.shards.build import SourceName, SourceOptions
from gencomp.cli.shards.simulate import LANES, WINDOW
from gencomp.recipes.schema import DataSection
from shards import open_set
from shards.building.sources import SOURCES
from shards.reading.reader import ShardSet
from tests.shards.foreign_tars import png, write_tar
from tests.shards.handmade import make_set, noise, sample
from tests.shards.object_server import LOCAL, FolderServer

Say = Callable[..., str]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a command line that must succeed; what it prints."""

    def run(*words: str | Path, code: int = 0) -> str:
        assert main(["shards", *map(str, words)]) == code, capsys.readouterr().err
        out, err = capsys.readouterr()
        assert err == ""
        return out

    return run


@pytest.fixture
def scenes(tmp_path: Path) -> ShardSet:
    grey = np.arange(54, dtype=np.uint8).reshape(6, 9) % 3
    maps = {"label": grey}
    splits = {
        name: [sample(f"{name}{i}", noise(100 * n + i), i % 2, maps) for i in range(n)]
        for name, n in (("train", 12), ("val", 7))
    }
    return make_set(tmp_path / "scenes", splits, classes=["road", "sky"])


class TestBuild:
    def test_every_source_and_every_option_is_there(self) -> None:
        assert {*get_args(SourceName)} == {*SOURCES, "wds"}
        own = {field.name for field in fields(SourceOptions)}
        for source in SOURCES.values():
            module, _, function = source.partition(":")
            found = inspect.signature(getattr(import_module(module), function)).parameters.values()
            for option in (p for p in found if p.kind == p.KEYWORD_ONLY):
                name = f"no_{option.name}" if option.default is True else option.name
                assert name in own, f"{source} has {option.name}, which shards build does not offer"

    def test_help_lists_the_sources(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["shards", "build", "--help"]) == 0
        out = capsys.readouterr().out
        for name in SOURCES:
            assert re.search(rf"^  {name} |the same for {name}$", out, re.M), out

    def test_help_is_light(self) -> None:
        code = (
            "import sys\nfrom gencomp.cli import main\n"
            "assert main(['shards', 'build', '--help']) == 0\n"
            "print(sorted({n.split('.')[0] for n in sys.modules} & "
            "{'torch', 'ray', 'numpy', 'pyarrow', 'PIL', 'pydantic', 'scipy'}))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == "[]"

    def test_a_folder(self, tmp_path: Path, images: Path, say: Say) -> None:
        out = tmp_path / "set"
        words = ("build", "folder", images, "--out", out, "--size", "6x8", "--test-images", "3")
        words += ("--storage", "webp", "--seed", "5", "--shard-size", "4", "--processes", "1")
        for _ in range(2):  # again: it is left as it is
            line = say(*words)
            assert line.startswith(f"{out}: train 10, test 3 samples, ")
        info = open_set(out).info
        assert info.transform.size == (6, 8) and info.transform.storage == "webp"
        assert info.parameters["test_images"] == 3 and info.parameters["seed"] == 5

    def test_bad_images(self, tmp_path: Path, images: Path, say: Say, refused: Say) -> None:
        for i in range(12):
            (images / f"bad{i:02d}.png").write_bytes(b"no image")
        out = tmp_path / "set"
        assert "bad" in refused("shards", "build", "folder", images, "--out", out)
        lines = say("build", "folder", images, "--out", out, "--on-error", "skip").splitlines()
        assert len(lines) == 12 and lines[1].startswith("skipped ")
        assert lines[-1] == "and 2 more skipped, which dataset.json lists"

    def test_what_was_done_to_images_is_said(
        self, tmp_path: Path, images: Path, say: Say, refused: Say
    ) -> None:
        Image.new("RGBA", (9, 7)).save(images / "clear.png")
        words = ("build", "folder", images, "--out", tmp_path / "set", "--processes", "1")
        assert "hidden colours" in refused("shards", *words)
        said = say(*words, "--storage", "png").splitlines()
        assert said[1:] == ["transparent pixels were laid over white: 1 of 14 images"]
        out = tmp_path / "other"
        limited = (*words[:3], "--out", out, "--storage", "png", "--max-pixels", "62")
        assert "exceed the limit of 62 pixels: raise --max-pixels" in refused("shards", *limited)

    def test_wds(self, scenes: ShardSet, tmp_path: Path, say: Say, refused: Say) -> None:
        tars = tmp_path / "tars"
        shutil.copytree(scenes.path, tars, ignore=lambda *_: ["index.parquet", "dataset.json"])
        out = say("build", "wds", tars, "--processes", "1")
        assert out.startswith(f"{tars}: train 12, val 7 samples")
        assert say("verify", tars).startswith(f"{tars}: whole; 19 samples in 5 shards")
        with FolderServer(tars) as server:
            uri = f"http://{LOCAL}:{server.port}"
            index = tmp_path / "index"
            pattern = f"{uri}/val-{{000000..000001}}.tar"
            assert "dev 7 samples" in say(
                "index", pattern, "--out", index, "--split", "dev", "--processes", "1"
            )
            assert "whole; 7 samples" in say("verify", index)
            assert "cannot be chosen" in refused("shards", "build", "wds", tars, "--size", "64")
            assert "remote" in refused("shards", "build", "wds", uri)
        (tars / "odd").mkdir()
        write_tar(tars / "odd" / "a.tar", {"0.png": png(0), "1.png": b"no image"})
        assert "--on-error skip" in refused("shards", "build", "wds", tars / "odd")
        out = say("build", "wds", tars / "odd", "--on-error", "skip", "--processes", "1")
        assert "train 1 samples" in out and "skipped a.tar, key '1'" in out
        few = ("build", "wds", tars / "few", "--processes", "1")
        (tars / "few").mkdir()
        write_tar(tars / "few" / "a.tar", {"0.png": png(0), "1.png": png(1, (3, 3))})
        assert "raise --max-pixels" in refused("shards", *few, "--max-pixels", "9")
        assert "train 2 samples" in say(*few, "--max-pixels", "30")
        assert "needs PATH" in refused("shards", "build", "wds")
        assert "missing TARS" in refused("shards", "index")

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["photo"], "SOURCE cannot be 'photo', only one of photos, digits, glyphs, shapes, "),
            (["photos", "somewhere"], "photos takes no path"),
            (["folder"], "folder needs the path"),
            (["folder", "nowhere"], "nowhere"),
            (["photos", "--seed", "3"], "the source photos has no option 'seed'"),
            (["photos", "--no-labels"], "the source photos has no option 'labels'"),
            (["photos", "--size", "big"], "'big'"),
            (["photos", "--shard-size", "0"], "must be at least 1"),
            (["photos", "--processes", "0"], "at least 1"),
            (["photos", "--storage", "gif"], "'gif'"),
        ],
    )
    def test_refusals(self, words: list[str], said: str, refused: Say, tmp_path: Path) -> None:
        assert said in refused("shards", "build", *words, "--out", tmp_path / "out")


class TestLook:
    def test_verify(self, scenes: ShardSet, say: Say, refused: Say, tmp_path: Path) -> None:
        path = Path(scenes.path)
        out = say("verify", path)
        size = sum(tar.stat().st_size for tar in path.glob("*.tar"))
        assert out == f"{path}: whole; 19 samples in 5 shards, {size / 1e6:.1f} MB\n"
        (path / "val-000001.tar").unlink()
        lines = say("verify", path, code=1).splitlines()
        assert lines[0] == "val-000001.tar: the shard is missing"
        assert lines[-1].startswith(f"{path}: 1 problem; 19 samples in 5 shards, ")
        assert "no shard set" in refused("shards", "verify", tmp_path / "nope")
        assert "at least 1" in refused("shards", "verify", path, "--processes", "0")
        (path / "dataset.json").write_text("{")
        assert "cannot be read" in refused("shards", "verify", path)

    def test_verify_shows_the_first_problems(self, tmp_path: Path, say: Say) -> None:
        samples = [sample(f"{i}", noise(i % 9))._replace(width=2) for i in range(120)]
        made = make_set(tmp_path / "set", {"train": samples}, shard_size=60)
        lines = say("verify", made.path, code=1).splitlines()
        assert lines[100] == "and 20 more" and len(lines) == 103
        assert lines[101].startswith("note: split 'train', repeated images: 111, such as ")

    def test_stats(self, scenes: ShardSet, say: Say, refused: Say, tmp_path: Path) -> None:
        numbers, sheet = tmp_path / "stats.json", tmp_path / "sheet.png"
        words = ("stats", scenes.path, "--json", numbers, "--sheet", sheet, "--sheet-images", "4")
        out = say(*words)
        assert f"{scenes.path}: scenes from handmade; none" in out
        assert "train: 12 samples, 648 pixels" in out and "  size 9x6: 12" in out
        assert "  label road: 6" in out and "  label sky: 6" in out
        assert "  label pixels road: 33.33%\n" in out and "  label pixels 2: 33.33%\n" in out
        content = json.loads(numbers.read_text())
        assert content["splits"]["val"]["samples"] == 7
        assert content["index_hash"] == scenes.index_hash
        with Image.open(sheet) as image:
            assert image.format == "PNG"
        for changed in (("--json", numbers), ("--sheet", sheet)):
            assert "exists" in refused("shards", "stats", scenes.path, *changed)
        assert "no directory" in refused(
            "shards", "stats", scenes.path, "--json", tmp_path / "no" / "a.json"
        )
        assert ".png" in refused("shards", "stats", scenes.path, "--sheet", tmp_path / "a.jpg")

    def test_a_map_of_labels_shows_classes(self, tmp_path: Path, say: Say) -> None:
        values = np.zeros((6, 9), dtype=np.uint8)
        values[0] = 1
        samples = [sample("a", noise(0), maps={"label": values})]
        made = make_set(tmp_path / "set", {"train": samples}, classes=["road", "sky"])
        out = say("stats", made.path)
        assert "  label pixels road: 83.33%\n  label pixels sky: 16.67%\n" in out

    def test_many_labels(self, tmp_path: Path, say: Say) -> None:
        samples = [sample(f"{i}", noise(i, 1, 1), label=i) for i in range(14)]
        out = say("stats", make_set(tmp_path / "set", {"train": samples}).path)
        assert out.count("  label ") == 10 and "  and 4 more of label" in out


class TestCut:
    def test_split_and_sample(
        self, scenes: ShardSet, tmp_path: Path, say: Say, refused: Say
    ) -> None:
        new, small = tmp_path / "new", tmp_path / "small"
        line = say("split", scenes.path, "--out", new, "--test-images", "5", "--seed", "3")
        assert line.startswith(f"{new}: train 14, test 5 samples, ")
        assert "train 9, test 3" in say(
            "split", scenes.path, "--out", tmp_path / "part", "--from", "train",
            "--test-fraction", "0.25",
        )  # fmt: skip
        assert "train 4, test 4" in say("sample", new, "--out", small, "--count", "4")
        assert "whole; 8 samples" in say("verify", small)
        assert "val 2 samples" in say(
            "sample", scenes.path, "--out", tmp_path / "v", "--count", "2", "--split", "val"
        )
        assert "either" in refused("shards", "split", scenes.path, "--out", tmp_path / "x")
        assert "already" in refused("shards", "sample", new, "--out", small, "--count", "3")
        assert "missing --out" in refused("shards", "sample", new, "--count", "3")
        assert "no shard set" in refused(
            "shards", "split", tmp_path / "nope", "--out", tmp_path / "x", "--test-images", "1"
        )


class TestSimulate:
    def test_a_set(self, built: Path, say: Say) -> None:
        out = say("simulate", built, "--nodes", "2", "--ranks-per-node", "2", "--batch-size", "8")
        samples = open_set(built).splits["train"]
        assert f"{built}, split train: {samples} samples in 4 shards" in out
        assert "all nodes: 8 shards" in out and "rank correlation" in out

    def test_a_made_up_set(self, say: Say) -> None:
        made_up = ("--samples", "4000", "--shard-size", "100", "--sample-bytes", "10000")
        windowed = ("--order", "windowed", "--window", "50", "--lanes", "2", "--cache-gb", "0.004")
        out = say("simulate", *made_up, *windowed, "--nodes", "2", "--epochs", "2")
        assert "a made-up split: 4000 samples in 40 shards, 0.04 GB; 8000 samples are read" in out
        rows = [line.split() for line in out.splitlines() if re.match(r"  [01] ", line)]
        assert len(rows) == 2 and all(40 <= int(row[1]) <= 44 for row in rows)
        everywhere = say("simulate", *made_up, "--cache-gb", "0.004")
        assert int(re.search(r"all nodes: (\d+) shards", everywhere)[1]) > 3000  # type: ignore[index]

    def test_defaults_are_those_of_recipes(self) -> None:
        fields = DataSection.model_fields
        assert (fields["window"].default, fields["lanes"].default) == (WINDOW, LANES)

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ([], "missing --sample-bytes"),
            (["--samples", "10"], "missing --sample-bytes"),
            (["SET", "--samples", "10"], "--samples and a shard set exclude"),
            (["SET", "--split", "dev"], "no split 'dev'"),
            (["SET", "--window", "3"], "--window and --lanes are of --order windowed"),
            (["SET", "--nodes", "0"], "must be at least 1"),
            (["SET", "--cache-gb", "0"], "cannot hold the largest shard"),
            (["SET", "--epochs", "0"], "must be at least 1"),
            (["SET", "--order", "windowed", "--window", "0"], "must be at least 1"),
            (["nowhere"], "no shard set"),
        ],
    )
    def test_refusals(self, built: Path, words: list[str], said: str, refused: Say) -> None:
        assert said in refused(
            "shards", "simulate", *(str(built) if w == "SET" else w for w in words)
        )


class TestProgress:
    def test_rate(self) -> None:
        rate = Rate(1000, now=10.0)
        assert rate.text(1000, 9000, now=10.0) == ""
        assert rate.text(3000, 9000, now=14.0) == "500/s, 0:00:12 left"
        assert rate.text(1001, 9000, now=12.0) == "0.5/s, 4:26:38 left"
        assert duration(3723.4) == "1:02:03"

    def test_lines(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        clock = [0.0]
        monkeypatch.setattr(time, "monotonic", lambda: clock[0])
        with progress("building", "images") as show:
            for second in range(26):
                clock[0] = float(second)
                show("train", 500 + 100 * second, 10_000)
        assert capsys.readouterr().err.splitlines() == [
            "building train: 1500 of 10000 images, 100/s, 0:01:25 left",
            "building train: 2500 of 10000 images, 100/s, 0:01:15 left",
        ]

    def test_a_terminal_gets_a_bar(self, tmp_path: Path) -> None:
        code = (
            "import time\nfrom gencomp.cli.console import progress\n"
            "with progress('verifying', 'samples') as show:\n"
            "    for done in range(1, 8):\n"
            "        show('samples', 100 * done, 1000)\n        time.sleep(0.1)\n"
        )
        ours, theirs = pty.openpty()
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
        with subprocess.Popen([sys.executable, "-c", code], stderr=theirs, env=environment) as done:
            os.close(theirs)
            seen = b""
            try:
                while chunk := os.read(ours, 4096):
                    seen += chunk
            except OSError:  # Linux says so at the end
                pass
        os.close(ours)
        assert done.returncode == 0
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
        assert re.search(r"verifying samples .*\d00 of 1000 samples +\d+/s, 0:00:0\d left", plain)
