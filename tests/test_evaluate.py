"""`gencomp evaluate`, end to end: interrupted, shared among processes, and within its memory."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gencomp.cli import main
from tests import scripted, tiny
from tests.conftest import ROOT
from tests.waiting import PATIENCE, wait_for

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def words(codec_run: Path, tmp_path: Path) -> list[str]:
    """Everything measured on a copy of the codec, in ten blocks."""
    run = shutil.copytree(codec_run, tmp_path / "codec")
    features, lpips = scripted.features(tmp_path), scripted.perceptual(tmp_path)
    networks = ["--features", str(features.path), "--features-sha256", features.sha256]
    networks += ["--lpips", str(lpips.path), "--lpips-sha256", lpips.sha256]
    metrics = ["--metrics", "mse,psnr,ms_ssim,pv,fid,kid,lpips,rate0,mmd", "--draws", "3"]
    sizes = ["--block", "8", "--batch-size", "4", "--samples", "30"]
    return ["evaluate", str(run), *metrics, *networks, *sizes]


def directory(words: list[str], name: str = "metrics") -> Path:
    return Path(words[1]) / "evaluations" / name


def started(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "gencomp.cli", *words],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


# A process that is killed when it has so many parts, and the next one but for its name.
_KILLED = """
import os, signal, sys
from pathlib import Path
from gencomp.cli import main

parts, count, replace = Path(sys.argv[1]), int(sys.argv[2]), os.replace

def replaced(old, new):
    if Path(new).parent == parts and len(list(parts.glob("block*"))) == count:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(old, new)

os.replace = replaced
main(sys.argv[3:])
"""


def test_a_table_and_a_file(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "95 % interval" in out and "pixels on [-1, 1]" in out
    # What a negative distance means is said before the first number.
    assert out.index("a negative one means") < out.index("95 % interval")
    assert "rate 0: MSE" in out
    content = json.loads((directory(words) / "metrics.json").read_text())
    assert {"mse", "rfd", "sfd", "rkd", "rate0_rfd", "mmd", "nominal_bpp"} <= set(
        content["metrics"]
    )
    # The same command again only writes the same file.
    before = files_of(directory(words))
    assert main(words) == 0
    assert files_of(directory(words)) == before

    assert main([*words, "--seed", "8"]) == 2
    assert "seed was 7, would be 8 (choose another --name" in capsys.readouterr().err


def files_of(path: Path) -> dict[str, bytes]:
    """The files but for those of the lock, which name the processes that held it."""
    return {k: v for k, v in tiny.tree(path).items() if not k.startswith("lock")}


def test_killed_and_continued_it_gives_the_same_bits(words: list[str]) -> None:
    assert main([*words, "--name", "whole"]) == 0
    whole = tiny.tree(directory(words, "whole"))
    killed = directory(words)
    for there in (2, 6):
        command = [sys.executable, "-c", _KILLED, str(killed / "parts"), str(there), *words]
        done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert len([path for path in (killed / "parts").iterdir() if path.name[0] == "."]) == 1
    assert not (killed / "metrics.json").exists()
    assert main(words) == 0
    after = tiny.tree(killed)
    for name in [f"parts/block-{i:05d}.safetensors" for i in range(10)]:
        assert after[name] == whole[name], name
    # The results differ only in the record of who measured: other command lines did.
    one, other = (json.loads(tree["metrics.json"]) for tree in (whole, after))
    assert len(one.pop("environment")) == 1 < len(other.pop("environment")) and one == other
    assert not [name for name in after if "/." in name]


def test_two_processes_give_the_same_bits(words: list[str]) -> None:
    assert main([*words, "--name", "one"]) == 0
    assert main([*words, "--name", "two", "--processes", "2"]) == 0
    one, two = (files_of(directory(words, name)) for name in ("one", "two"))
    assert one == two


def test_a_refusal_of_a_worker_is_one_sentence(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features = Path(words[words.index("--features") + 1])
    lpips = words[words.index("--lpips") + 1]
    shutil.copy(lpips, features)  # not what features are made with
    words[words.index("--features-sha256") + 1] = words[words.index("--lpips-sha256") + 1]
    assert main([*words, "--processes", "2"]) == 2
    err = capsys.readouterr().err
    assert "features3.pt refuses torch.uint8 images" in err
    assert len(err.splitlines()) == 1


@pytest.mark.slow
def test_ctrl_c_ends_every_process(words: list[str]) -> None:
    process = started([*words, "--processes", "2", "--draws", "4000"])
    try:
        assert wait_for(lambda: len(_children(process.pid)) >= 3)  # and a resource tracker
        children = _children(process.pid)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
        _, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))


@pytest.mark.slow
def test_workers_end_when_their_parent_is_killed(words: list[str]) -> None:
    process = started([*words, "--processes", "2", "--draws", "4000"])
    try:
        assert wait_for(lambda: len(_children(process.pid)) >= 3)
        children = _children(process.pid)
    finally:
        process.kill()
        process.wait()
    assert wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--metrics", "mse,ssim"], "--metrics 'ssim' is not one of mse, psnr"),
        (["--metrics", "fid"], "need a feature network: name it by --features"),
        (["--split", "nowhere"], "nowhere"),
        (["--name", "a/b"], "must be one plain directory name"),
        (["--processes", "0"], "--processes 0 must be at least 1"),
        (["--features", "pyproject.toml"], "which is no network known here"),
        (["--draws", "many"], "--draws"),
    ],
)
def test_bad_input_is_one_sentence(
    generator_run: Path, more: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tiny.tree(generator_run)
    assert main(["evaluate", str(generator_run), *more]) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert len(err.splitlines()) == 1
    assert tiny.tree(generator_run) == before


@pytest.mark.slow
def test_memory_does_not_grow_with_the_images(
    tmp_path: Path, gencomp: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """45 MB more of images in the same memory, once the kernel distance has a whole subset."""
    from shards.building.build import build

    build("photos", tmp_path / "photos", options={"size": "64"}, shard_size=500)
    run, _ = tiny.trained(tmp_path / "run", tiny.generator(tmp_path / "photos"))
    features = scripted.features(tmp_path)
    fixed = ["--split", "train", "--features", str(features.path)]
    fixed += ["--features-sha256", features.sha256]

    def peak(images: int) -> int:
        """The most memory of a process of its own, in bytes."""
        process = started(
            ["evaluate", str(run.path), *fixed, "--images", str(images), "--name", f"n{images}"]
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        process.communicate()
        assert process.returncode == 0
        return usage.ru_maxrss * 1024

    few, many = peak(1500), peak(5257)
    images = (5257 - 1500) * 3 * 64 * 64
    assert many - few < images / 4, f"{(many - few) / 2**20:.0f} MiB more"


def _children(pid: int) -> list[int]:
    try:
        return [
            int(p)
            for p in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
        ]
    except OSError:
        return []
