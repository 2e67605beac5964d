"""A pool of processes: its results, and how many threads its processes compute with."""

from __future__ import annotations

import os

import pytest

from shards.pool import Report, in_order


def threads(number: int, report: Report) -> tuple[int, str | None]:
    return number, os.environ.get("OMP_NUM_THREADS")


@pytest.mark.parametrize("own", [None, "2"])
def test_each_process_computes_with_one_thread(
    own: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This process keeps what it has, also while the others work."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if own is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", own)
    for number, found in enumerate(in_order(threads, range(5), 2, watch=lambda counts: None)):
        assert found == (number, "1")
        assert os.environ.get("OMP_NUM_THREADS") == own
