"""What workers refuse to go on with reaches their driver, on a full disk as well."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from cluster import final_errors
from cluster.checkpoints.writer import SavingError
from cluster.final_errors import Refusal
from gencomp.errors import InputError
from tests.chaos.disk import mounted


def test_what_means_what(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "metrics.jsonl"))
    found = final_errors.refusal(full, tmp_path)
    assert found is not None and not found.input and isinstance(found.error(), SavingError)
    assert found.sentence == (
        f"{tmp_path / 'metrics.jsonl'} could not be written: No space left on device; make room,"
        " and the same command goes on from the newest checkpoint"
    )
    bad = final_errors.refusal(InputError("no such data"), tmp_path)
    assert bad == Refusal(True, "no such data") and isinstance(bad.error(), InputError)
    saving = SavingError(errno.ENOSPC, "it")
    assert final_errors.refusal(saving, tmp_path) == Refusal(False, str(saving))
    # Those that are started again may have more luck.
    assert final_errors.refusal(ValueError("a bug"), tmp_path) is None
    assert final_errors.refusal(ConnectionResetError("a rank has gone"), tmp_path) is None


def test_said_on_a_full_disk(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", megabytes=1) as disk:
        path = disk.path / "refusal"
        assert final_errors.said(path) is None
        final_errors.reserve(path)
        assert final_errors.said(path) is None
        with disk.filled():
            with pytest.raises(OSError, match="No space left"):
                (disk.path / "another").write_bytes(bytes(4096))
            for sentence in ("é" * 5000, "no room"):
                final_errors.say(path, Refusal(False, sentence))
                found = final_errors.said(path)
                assert found is not None and found.sentence == sentence[:800]
            with pytest.raises(SavingError, match="No space left on device; mend that, and the"):
                final_errors.reserve(path)
        final_errors.reserve(path)
        assert final_errors.said(path) is None
