"""Names and texts are the same under every locale, and no output dies of an encoding."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gencomp.cli import main
from shards.info import read_info
from tests.waiting import PATIENCE

LATIN_1 = "en_US.ISO-8859-1"
PLAIN_C = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


@pytest.fixture(scope="session")
def latin_1(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a locale with ISO-8859-1, which machines seldom have: it is compiled."""
    if shutil.which("localedef") is None:
        pytest.skip("no localedef here")
    places = tmp_path_factory.mktemp("locales")
    words = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(places / LATIN_1)]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("localedef finds no description of en_US: Debian's package is `locales`")
    return {"LOCPATH": str(places), "LC_ALL": LATIN_1}


def command(
    *words: str | bytes | Path, here: Path, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """One command line, in an environment with no setting of language but these."""
    settings = ("LANG", "LC_", "PYTHONUTF8", "PYTHONIOENCODING")
    rest = {name: text for name, text in os.environ.items() if not name.startswith(settings)}
    return subprocess.run(
        [sys.executable, "-m", "gencomp.cli", *words],
        cwd=here,
        env={**rest, **environment},
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Folders whose names are classes and whose files have names that are not ASCII."""
    for split, count in (("train", 4), ("test", 2)):
        for place in range(count):
            file = tmp_path / "pictures" / split / "Bär λ" / f"é{place}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.full((16, 16, 3), 40 * place + len(split), np.uint8)
            Image.fromarray(pixels).save(file)
    return tmp_path / "pictures"


@pytest.mark.parametrize(
    ("environment", "printed"),
    [("plain C", "utf-8"), ("Latin-1", "iso8859-1"), ("ASCII output", "ascii")],
)
def test_a_folder_gives_one_set_under_every_locale(
    environment: str,
    printed: str,
    pictures: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    assert main(["shards", "build", "folder", str(pictures), "--out", str(tmp_path / "set λ")]) == 0
    expected = read_info(tmp_path / "set λ")
    known = {"plain C": PLAIN_C, "ASCII output": {"PYTHONIOENCODING": "ascii"}}
    setting = known.get(environment) or request.getfixturevalue("latin_1")
    words = ("shards", "build", "folder", "pictures", "--out", "Menge λ")
    built = command(*words, here=tmp_path, **setting)
    assert built.returncode == 0, built.stderr
    found = read_info(tmp_path / "Menge λ")
    assert found.index_hash == expected.index_hash and found.classes == ["Bär λ"]

    shown = command("shards", "stats", "Menge λ", here=tmp_path, **setting)
    assert shown.returncode == 0, shown.stderr
    assert "Bär λ".encode(printed, errors="replace") in shown.stdout


def test_a_report_is_written_under_another_locale(
    generator_run: Path, tmp_path: Path, latin_1: dict[str, str]
) -> None:
    words = ("report", "--generator", str(generator_run), "--out", "Seite λ.html")
    done = command(*words, here=tmp_path, **latin_1)
    assert done.returncode == 0, done.stderr
    assert "λ" in (tmp_path / "Seite λ.html").read_text(encoding="utf-8")


def test_a_name_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    done = command("train", b"r\xe9seau.yaml", here=tmp_path, LC_ALL="C.UTF-8")
    assert done.returncode == 2
    text = "r\\xe9seau.yaml is not UTF-8, in which gencomp writes all names: give it another name"
    assert done.stderr.decode() == f"gencomp: error: {text}\n"
