"""`gencomp completion`: a shell completes commands, options, their values and names, by itself."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gencomp.cli import COMMANDS, GROUPS, main
from gencomp.recipes import shipped
from tests.processes import ENVIRONMENT

Complete = Callable[..., list[str]]


ZSH = shutil.which("zsh")


def written(shell: str, path: Path) -> Path:
    with path.open("w", encoding="utf-8") as out, contextlib.redirect_stdout(out):
        assert main(["completion", shell]) == 0
    return path


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script for bash, in a folder of its own."""
    return written("bash", tmp_path_factory.mktemp("completion") / "gencomp")


@pytest.fixture(scope="module")
def zsh_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script for zsh, in a folder of its own."""
    return written("zsh", tmp_path_factory.mktemp("completion") / "_gencomp")


def in_bash(script: Path, words: Sequence[str]) -> list[str]:
    line = shlex.join(["gencomp", *words])
    return [
        "/bin/bash",
        "--noprofile",
        "--norc",
        "-uc",
        f"source {shlex.quote(str(script))}; COMP_WORDS=({line}); COMP_CWORD={len(words)};"
        ' _gencomp; printf "%s\\n" "${COMPREPLY[@]}"',
    ]


def in_zsh(script: Path, words: Sequence[str]) -> list[str]:
    """zsh completes only where a line is edited; what it does with the words found is simple."""
    line = shlex.join(["gencomp", *words])
    return [
        str(ZSH),
        "-fuc",
        "compdef() {}; _files() {}; compadd() { print -rl -- ${(M)found:#${words[CURRENT]}*} };"
        f" source {shlex.quote(str(script))}; words=({line}); CURRENT={len(words) + 1}; _gencomp",
    ]


@pytest.fixture(scope="module", params=["bash", "zsh"])
def complete(request: pytest.FixtureRequest, script: Path, zsh_script: Path) -> Complete:
    """What a shell without any program on its path makes of the words before the cursor."""
    if request.param == "zsh" and ZSH is None:
        pytest.skip("needs zsh")

    def complete(*words: str) -> list[str]:
        command = in_bash(script, words) if request.param == "bash" else in_zsh(zsh_script, words)
        environment = {**os.environ, "PATH": str(script.parent)}
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=60, env=environment
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
        (["completion", ""], ["bash", "zsh"]),
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


def test_every_process_writes_the_same_script() -> None:
    """The hashes of words, and with them the order of sets, differ between processes."""
    scripts = {
        subprocess.check_output(
            [sys.executable, "-m", "gencomp.cli", "completion", "bash"],
            env=ENVIRONMENT | {"PYTHONHASHSEED": seed},
        )
        for seed in ("0", "1")
    }
    assert len(scripts) == 1


def test_both_shells_know_the_same_words(script: Path, zsh_script: Path) -> None:
    """Also where there is no zsh to ask."""
    tables = [
        path.read_text(encoding="utf-8").partition("_gencomp_options")[2].partition("_gencomp()")[0]
        for path in (script, zsh_script)
    ]
    assert tables[0] == tables[1] and "vae_linear_mnist" in tables[0]


@pytest.mark.skipif(ZSH is None, reason="needs zsh")
@pytest.mark.parametrize("sourced", [True, False])
def test_zsh_completes_a_line_that_is_edited(
    zsh_script: Path, tmp_path: Path, sourced: bool
) -> None:
    """Typed into a real terminal, as the function of a folder of $fpath or by source."""
    begin = f"fpath=({shlex.quote(str(zsh_script.parent))} $fpath)"
    load = f"source {shlex.quote(str(zsh_script))}" if sourced else ""
    (tmp_path / "file.png").touch()
    code = (
        "zmodload zsh/zpty; zpty z zsh -f; zpty -w z 'PS1=ready; cd '"
        + shlex.quote(shlex.quote(str(tmp_path)))
        + f"; zpty -w z {shlex.quote('' if sourced else begin)};"
        + " zpty -w z 'autoload -U compinit; compinit -u -D';"
        + f" zpty -w z {shlex.quote(load)};"
        + r""" zpty -w -n z $'gencomp slurm tr\t';"""
        + r""" zpty -r -m z line '*gencomp slurm train*'; zpty -w -n z $'vae_l\t';"""
        + r""" zpty -r -m z line '*vae_linear_mnist*'; zpty -w -n z $'fil\t';"""
        + r""" zpty -r -m z line '*file.png*'; print -r done"""
    )
    done = subprocess.run([str(ZSH), "-fc", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "done\n", done.stderr


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "csh"]) == 2
    assert "cannot be 'csh', only one of bash, zsh" in capsys.readouterr().err
