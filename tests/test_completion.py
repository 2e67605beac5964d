"""`gencomp completion`: bash completes commands, options, their values and names, by itself."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gencomp.cli import COMMANDS, GROUPS, main
from gencomp.recipes import shipped

Complete = Callable[..., list[str]]


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script, in a folder of its own."""
    path = tmp_path_factory.mktemp("completion") / "gencomp"
    with path.open("w", encoding="utf-8") as out, contextlib.redirect_stdout(out):
        assert main(["completion", "bash"]) == 0
    return path


@pytest.fixture(scope="module")
def complete(script: Path) -> Complete:
    """What a bash without any program on its path makes of the words before the cursor."""

    def complete(*words: str) -> list[str]:
        line = shlex.join(["gencomp", *words])
        code = (
            f"source {shlex.quote(str(script))}; COMP_WORDS=({line}); COMP_CWORD={len(words)};"
            ' _gencomp; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        bash = ["/bin/bash", "--noprofile", "--norc", "-uc", code]
        environment = {**os.environ, "PATH": str(script.parent)}
        done = subprocess.run(
            bash, capture_output=True, text=True, check=False, timeout=60, env=environment
        )
        assert done.returncode == 0 and done.stderr == ""
        return done.stdout.split()

    return complete


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["tra"], ["train"]),
        (["--debug", "tra"], ["train"]),
        (["--ver"], ["--version"]),
        (["slurm", "s"], ["status", "sweep"]),
        (["train", "vae_l"], ["vae_linear_mnist"]),
        (["slurm", "train", "--nodes", "2", "vae_l"], ["vae_linear_mnist"]),
        (["train", "--loss.mmd_weight", "3", "vae_l"], ["vae_linear_mnist"]),
        (["train", "--gpu", "vae_l"], ["vae_linear_mnist"]),
        (["train", "vae_mnist", "vae"], []),
        (["sweep", "urdp_bits"], ["urdp_bits_mnist"]),
        (["recipes", "urdp_bits"], ["urdp_bits_mnist"]),
        (["train", "vae_mnist", "--work"], ["--workers"]),
        (["evaluate", "--reconstructions", ""], ["networks", "files"]),
        (["shards", "build", "--on-error", "s"], ["skip", "stop"]),
        (["shards", "build", "ci"], ["cityscapes", "cifar10"]),
        (["demo", "ur"], ["urdp"]),
        (["completion", ""], ["bash"]),
        (["figure", "image-curves", "--o"], ["--out", "--overwrite"]),
        (["status", "any"], []),
        (["nonsense", "a"], []),
    ],
    ids=" ".join,
)
def test_words_are_completed(words: list[str], found: list[str], complete: Complete) -> None:
    assert sorted(complete(*words)) == sorted(found)


def test_everything_is_there(complete: Complete) -> None:
    assert set(complete("")) == {name.split()[0] for name in COMMANDS}
    for group in GROUPS:
        inside = {name.split()[1] for name in COMMANDS if name.split()[0] == group}
        assert set(complete(group, "")) == inside
    assert complete("train", "") == shipped.names("gencomp.recipes")
    assert complete("sweep", "") == shipped.names("sweeps")
    assert "--help" in complete("doctor", "-")


def test_the_script_registers_itself(script: Path) -> None:
    """Names of files stand in where it knows nothing."""
    code = f"source {shlex.quote(str(script))}; complete -p gencomp"
    done = subprocess.run(["/bin/bash", "-uc", code], capture_output=True, text=True, check=True)
    assert done.stdout == "complete -o default -F _gencomp gencomp\n"


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "csh"]) == 2
    assert "cannot be 'csh', only one of bash" in capsys.readouterr().err
