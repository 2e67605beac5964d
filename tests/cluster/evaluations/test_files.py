"""Measuring files: what a picture costs and looks like, in blocks that any process may make."""

from __future__ import annotations

import json
import math
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shards
from cluster.evaluations.files import parts, plan, results, work
from cluster.evaluations.files.plan import Evaluation
from cluster.evaluations.files.settings import FileOptions
from cluster.evaluations.processes import make_parts
from cluster.runs import Run
from gencomp.cli import main
from gencomp.errors import InputError
from gencomp.system import Picture


@pytest.fixture
def codec(codec_run: Path, tmp_path: Path) -> Run:
    return Run(Path(shutil.copytree(codec_run, tmp_path / "codec")))


def entered(run: Run, name: str = "files", images: int = 5, **chosen: Any) -> Evaluation:
    options = FileOptions(**{"block": 2, "images": images, **chosen})
    return Evaluation.find(run, name, plan.make(run, options, threads=1)).enter()


def measure(evaluation: Evaluation, processes: int = 1) -> dict[str, Any]:
    """Make every missing part, and merge them."""
    maker = partial(work.open_maker, evaluation.path)
    make_parts(maker, evaluation.missing(), processes)
    results.collect(evaluation, require_all=True)
    return json.loads(evaluation.result.read_text())  # type: ignore[no-any-return]


def without_seconds(evaluation: Evaluation, block: int) -> dict[str, list[float]]:
    values, _ = parts.read_part(evaluation, block)
    return {name: value.tolist() for name, value in values.items() if "seconds" not in name}


def test_values_are_those_of_the_files_themselves(codec: Run, photos: Path) -> None:
    evaluation = entered(codec)
    found = measure(evaluation)["metrics"]
    writer = codec.system().codec()
    assert writer is not None
    split = shards.open_set(photos).split("test")
    bits, sizes, errors = [], [], []
    for row in evaluation.plan.rows:
        image_HWC = split.image(row)
        stream = writer.compress(Picture(image_HWC, index=row))
        bits.append(writer.code_bits(stream) / image_HWC[..., 0].size)
        sizes.append(8 * len(stream) / image_HWC[..., 0].size)
        difference = writer.decompress(stream).astype(int) - image_HWC
        errors.append((difference**2).mean() / 127.5**2)
    assert found["bpp"]["value"] == pytest.approx(np.mean(bits), rel=1e-12)
    assert found["file_bpp"]["value"] == pytest.approx(np.mean(sizes), rel=1e-12)
    assert found["mse"]["value"] == pytest.approx(np.mean(errors), rel=1e-12)
    assert found["psnr"]["value"] == pytest.approx(10 * math.log10(4 / np.mean(errors)))
    nominal = writer.nominal_bits(64, 64)
    assert nominal is not None
    assert found["nominal_bpp"]["value"] == pytest.approx(nominal / 64**2)
    salt = 8 / 64**2
    assert found["bpp"]["value"] <= nominal / 64**2 + salt < found["file_bpp"]["value"]
    # Five pictures share one container of less than five.
    together = writer.compress_jointly([Picture(split.image(row)) for row in evaluation.plan.rows])
    pixels = len(evaluation.plan.rows) * 64**2
    assert found["joint_file_bpp"]["value"] == 8 * len(together) / pixels
    assert found["joint_bpp"]["value"] == writer.code_bits(together) / pixels
    assert found["bpp"]["value"] < found["joint_file_bpp"]["value"] < found["file_bpp"]["value"]
    assert (found["joint_file_bpp"]["images"], found["joint_file_bpp"]["containers"]) == (5, 1)
    for name in ("bpp", "mse", "psnr", "ms_ssim"):
        low, high = found[name]["interval"]
        assert low <= found[name]["value"] <= high
    assert all(found[name]["value"] > 0 for name in ("encode_seconds", "decode_seconds"))


def test_blocks_and_processes_change_nothing_but_seconds(codec: Run) -> None:
    one, two = entered(codec, "one"), entered(codec, "two")
    first, second = measure(one)["metrics"], measure(two, processes=2)["metrics"]
    assert [without_seconds(one, b) for b in range(3)] == [
        without_seconds(two, b) for b in range(3)
    ]
    whole = measure(entered(codec, "whole", block=16))["metrics"]
    for name in ("bpp", "file_bpp", "joint_bpp", "joint_file_bpp", "mse", "ms_ssim"):
        assert first[name] == second[name] == whole[name]


def test_what_is_killed_loses_a_block_at_most(codec: Run) -> None:
    evaluation = entered(codec)
    context = work.open_context(evaluation)

    class Killed(Exception):
        pass

    def killed(items: int) -> None:
        raise Killed

    work.make_part(context, 0)
    with pytest.raises(Killed):
        work.make_part(context, 1, killed)
    assert evaluation.missing() == [1, 2, 3]
    partial_result = results.collect(evaluation)
    assert partial_result.content["images"] == 2 and not partial_result.content["complete"]
    with pytest.raises(InputError, match=r"lacks 3 of 4 blocks \(8 images\): blocks 1, 2, 3"):
        results.collect(evaluation, require_all=True)
    assert measure(evaluation)["complete"]


def test_a_file_that_decodes_to_something_else_is_a_failure(codec: Run) -> None:
    writer = codec.system().codec()
    assert writer is not None

    class Lying:
        """Promises another image than its files hold."""

        def __getattr__(self, name: str) -> Any:
            return getattr(writer, name)

        def reconstruct(self, picture: Picture) -> np.ndarray:
            assert writer is not None
            return 255 - writer.reconstruct(picture)

    picture = Picture(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(RuntimeError, match="does not decode to its reconstruction"):
        work.measure(Lying(), picture)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="of a joint container does not decode to its"):
        work.measure_jointly(Lying(), [picture, picture])  # type: ignore[arg-type]


def test_a_large_set_fills_several_joint_containers(codec: Run) -> None:
    found = measure(entered(codec, joint=2))["metrics"]
    assert (found["joint_file_bpp"]["images"], found["joint_file_bpp"]["containers"]) == (5, 3)
    one = measure(entered(codec, "one"))["metrics"]
    assert found["joint_bpp"]["value"] == one["joint_bpp"]["value"]
    assert found["joint_file_bpp"]["value"] > one["joint_file_bpp"]["value"]


def test_small_pictures_have_no_ms_ssim_and_methods_without_a_length_no_nominal_rate() -> None:
    values = {name: np.full(3, 2.0) for name in parts.VALUES}
    values["ms_ssim"] = np.array([np.nan, 0.5, 0.7])
    values["nominal_bits"] = np.full(3, np.nan)
    found = results.summary(values)
    assert found["ms_ssim"]["images"] == 2
    assert found["ms_ssim"]["value"] == pytest.approx(0.6)
    assert "nominal_bpp" not in found


def test_one_picture_has_no_intervals() -> None:
    found = results.summary({name: np.full(1, 2.0) for name in parts.VALUES})
    for name in ("bpp", "file_bpp", "nominal_bpp", "mse", "psnr", "ms_ssim"):
        assert found[name]["interval"] is None and found[name]["images"] == 1


def test_another_codec_and_damaged_parts_are_refused_by_name(codec: Run) -> None:
    evaluation = entered(codec)
    measure(evaluation)
    part = evaluation.part(1)
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match=r"block-00001.*remove it and run the evaluation again"):
        results.collect(evaluation)
    shutil.copy(evaluation.part(0), part)
    with pytest.raises(InputError, match="its block is 0, not 1"):
        results.collect(evaluation)
    other = evaluation.plan.model_copy(update={"writer": "0" * 12})
    with pytest.raises(InputError, match="has another codec than the plan"):
        work.open_context(Evaluation(evaluation.path, other))


def test_the_command_and_its_jobs(codec: Run, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--images", "4", "--block", "2"]
    assert main(["files", str(codec.path), *sizes]) == 0
    out = capsys.readouterr().out
    assert "joint_file_bpp" in out and "4 pictures, 1 containers" in out and "rates.json" in out
    jobs = ["slurm", "files", str(codec.path), *sizes, "--name", "jobs"]
    assert main([*jobs, "--executor", "debug", "--jobs", "2"]) == 0
    directory = codec.path / "evaluations" / "jobs"
    assert main(["slurm", "status", str(directory)]) == 0
    assert "3 of 3 blocks are finished" in capsys.readouterr().out
    assert main(["slurm", "collect", str(directory), "--require-all"]) == 0
    assert "4 images, complete" in capsys.readouterr().out
    here = json.loads((codec.path / "evaluations" / "files" / "rates.json").read_text())
    there = json.loads((directory / "rates.json").read_text())
    for name in ("bpp", "file_bpp", "joint_file_bpp", "mse", "psnr", "ms_ssim"):
        assert here["metrics"][name] == there["metrics"][name]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--images", "0"], "--images is 0"),
        (["--images", "1000"], "fewer than the 1000 asked for"),
        (["--block", "0"], "greater than or equal to 1"),
        (["--processes", "0"], "--processes 0 must be at least 1"),
    ],
)
def test_bad_input_is_one_sentence(
    codec: Run, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["files", str(codec.path), *words]) == 2
    err = capsys.readouterr().err
    assert sentence in err and len(err.strip().splitlines()) == 1
    assert not (codec.path / "evaluations").exists()


def test_a_run_without_a_codec_writes_no_files(
    generator_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["files", str(generator_run)]) == 2
    assert "has no codec, so it writes no files" in capsys.readouterr().err
