"""`gencomp recipes`: everything that ships is listed in a line, and printed byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from gencomp.cli import main

ROOT = Path(__file__).resolve().parent.parent
FILES = {
    path.stem: path
    for folder in ("gencomp/recipes", "sweeps")
    for path in (ROOT / folder).glob("*.yaml")
}


def test_all_are_listed_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines if line[:1] == " "}
    assert set(listed) == set(FILES)
    assert len(FILES) == sum(1 for _ in ROOT.glob("gencomp/recipes/*.yaml")) + sum(
        1 for _ in ROOT.glob("sweeps/*.yaml")
    ), "a recipe and a sweep have one name"
    assert max(map(len, lines)) <= 100
    for name, said in listed.items():
        assert said[0].isupper() or said[0] == "λ", name
        assert said.endswith(".") and FILES[name].read_text().startswith(f"# {said}\n")


@pytest.mark.parametrize("name", ["dplc_wae_photos", "vae_mnist", "dplc_joint_photos"])
def test_one_is_printed_byte_for_byte(
    name: str, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main(["recipes", name]) == 0
    out, err = capsysbinary.readouterr()
    assert out == FILES[name].read_bytes() and err == b""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("dplc_wae_foto", "did you mean dplc_wae_photos?"),
        ("dplc_joint_photo", "did you mean dplc_joint_photos?"),
        ("xyzzy", "gencomp recipes lists them"),
        ("../recipes/vae_mnist", "did you mean vae_mnist?"),
    ],
)
def test_others_are_refused(name: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", name]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"gencomp: error: no recipe or sweep {name!r} ships with gencomp; {said}\n"
