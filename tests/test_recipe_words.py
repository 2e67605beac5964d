"""The help of commands that take values of a recipe, and options that are no options."""

from __future__ import annotations

from pathlib import Path

import pytest

from gencomp.cli import main


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


@pytest.mark.parametrize(
    "words",
    [
        ["train", "dplc_wae_photos", "--help"],
        ["train", "--name", "mine", "dplc_wae_photos", "-h"],
        ["slurm", "train", "dplc_wae_photos", "--help"],
    ],
)
def test_help_shows_the_keys_of_a_recipe(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0
    out, err = capsys.readouterr()
    usage, _, keys = out.partition(
        "\nKeys of dplc_wae_photos (dplc/wae), each set by --KEY VALUE:\n"
    )
    assert err == "" and usage.startswith("usage: gencomp ") and "--stall-seconds" in usage
    assert (
        "  --loss.mmd_weight FLOAT         λ, weight of the MMD; at least 0 (default: 10.0)\n"
        in keys
    )
    assert max(map(len, keys.splitlines())) <= 100


def test_help_shows_the_values_of_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("{system: vae, stage: elbo, data: {shards: /data}, training: {steps: 7}}")
    assert main(["train", str(file), "--help"]) == 0
    out = capsys.readouterr().out
    assert "length in steps (instead of epochs); at least 1 (default: 7)" in out
    assert "--likelihood.value" in out and "--loss" not in out.partition("Keys of")[2]


@pytest.mark.parametrize("command", ["sweep", "slurm sweep"])
def test_help_shows_what_a_space_may_name(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "dplc_joint_photos", "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: gencomp {command} ")
    assert "(searched: 2, 4, 8, 16, 32)" in out


def test_help_without_a_recipe_says_how_to_see_its_keys(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["train", "--help"]) == 0
    out = capsys.readouterr().out
    assert "gencomp train RECIPE --help" in out and "Keys of" not in out


def test_help_of_a_recipe_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "nothing", "--help"]) == 2
    out, err = capsys.readouterr()
    assert out.startswith("usage: gencomp train ")
    assert err.startswith("gencomp: error: recipe 'nothing' is neither")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "train dplc_wae_photos --mmd_weight 3",
            "not understood: --mmd_weight 3; did you mean --loss.mmd_weight?",
        ),
        (
            "train dplc_wae_photos --gpu --mmd-wieght=3 --name x",
            "not understood: --mmd-wieght=3; did you mean --loss.mmd_weight?",
        ),
        (
            "slurm train dplc_wae_photos --prior_variance 3",
            "not understood: --prior_variance 3; did you mean --loss.prior_variance?",
        ),
        (
            "sweep dplc_joint_photos --code_channels 3",
            "not understood: --code_channels 3; did you mean --networks.code_channels?",
        ),
        (
            "train dplc_wae_photos --wrkrs 3",
            "not understood: --wrkrs 3; see gencomp train --help",
        ),
        ("train --mmd_weight 3", "RECIPE needs a value; see gencomp train --help"),
    ],
)
def test_options_without_their_section_are_answered_with_the_key(
    words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.split()) == 2
    assert capsys.readouterr().err == f"gencomp: error: {said}\n"
