"""Exit codes and the first words of messages stand in one place, and all floors use them."""

from __future__ import annotations

import re
from pathlib import Path

from cluster.checkpoints.writer import SavingError
from gencomp.errors import InputError
from gencomp.exit_codes import BAD_INPUT, ERROR, FAILED, FAILURE, SPEAKER, WARNING
from shards.errors import ShardError

ROOT = Path(__file__).resolve().parent.parent.parent


def test_errors_carry_their_codes() -> None:
    assert InputError("").exit_code == ShardError("").exit_code == BAD_INPUT
    assert SavingError("").exit_code == FAILED


def test_every_message_says_who_speaks() -> None:
    assert all(words.startswith(SPEAKER) for words in (ERROR, FAILURE, WARNING))


def test_nobody_else_writes_codes_or_first_words() -> None:
    pattern = re.compile(r"""["']gencomp: |\b(130|143)\b|exit_code\s*=\s*\d""")
    found = []
    for package in ("cluster", "gencomp", "slurm", "sweeps"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.name != "exit_codes.py":
                lines = enumerate(path.read_text().splitlines(), start=1)
                found += [f"{path}:{i}: {x}" for i, x in lines if pattern.search(x)]
    assert not found, "\n".join(found)
