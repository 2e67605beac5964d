"""`gencomp published`: every table, and one sentence for a table that is not there."""

from __future__ import annotations

import pytest

from gencomp.cli import main


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "kodak                    63      AV1, BPG, "),
        (["kodak"], "https://github.com/InterDigitalInc/CompressAI/blob/869a9f5d4126/results/"),
        (["lossless"], "https://github.com/fhkingma/bitswap/blob/dfe0bf7dd736/README.md"),
        (["speed"], "NVIDIA A100 GPU"),
    ],
)
def test_tables(capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert main(["published", *words]) == 0
    assert said in capsys.readouterr().out


def test_another_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["published", "photos"]) == 2
    error = capsys.readouterr().err
    assert "nothing is published here of the data set 'photos'; there are results of" in error
    assert error.count("\n") == 1
