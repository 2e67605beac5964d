"""What the processes of a trial import before they train."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.processes import ENVIRONMENT


@pytest.mark.parametrize("module", ["worker", "trainable", "gang"])
def test_torch_is_not_imported_before_a_worker_trains(module: str) -> None:
    """The process of a gang only passes on what its workers report."""
    code = f"import sys, sweeps.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT).returncode == 0
