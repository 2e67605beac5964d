"""What several tests of sweeps start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import tiny


@pytest.fixture
def base(photos: Path, generator_run: Path, tmp_path: Path) -> Path:
    """A recipe of a codec."""
    return tiny.write(tiny.codec(photos, generator_run), tmp_path / "codec.yaml")
