"""The benchmark of a GPU: every part of it runs, here on a CPU at tiny sizes, and it keeps time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

PARTS = {
    "yardstick": 7,
    "steps": 33,
    "waits": 2,
    "determinism": 2,
    "checkpoint": 4,
    "ais": 3,
    "codec": 4,
    "relative_entropy": 2,
    "allreduce": 3,
    "compiled": 1,
}


def run(cwd: Path, *words: str) -> str:
    """What the command prints, which ends well; it finds the project by itself and no GPU."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *words],
        cwd=cwd,
        env={**environment, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_part_is_measured_without_ray_and_pyarrow(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    table = run(tmp_path, "--device", "cpu", "--tiny", "--out", str(out))
    found: dict[str, Any] = json.loads(out.read_text())
    rows: list[dict[str, Any]] = found["rows"]
    assert Counter(row["part"] for row in rows) == PARTS
    assert [row for row in rows if row["status"] == "failed"] == []
    # Without a compiler nothing is compiled, which is no failure.
    assert {row["part"] for row in rows if row["status"] == "left out"} <= {"compiled"}
    assert found["unwanted_imports"] == []
    assert all(row["name"] in table for row in rows)
    assert [path.name for path in tmp_path.iterdir()] == ["gpu.json"]
    for row in rows:
        if row["part"] == "steps":
            assert row["tflop"] > 0 and row["images_s"] > 0 and row["of_product"] > 0, row["name"]
        if row["part"] == "determinism":
            assert row["det_same"], row["name"]
        if row["part"] == "codec":
            assert row["round_trip"] == "exact" and row["same_codec"], row["name"]


def test_when_time_is_over_the_rest_is_left_out(tmp_path: Path) -> None:
    table = run(tmp_path, "--device", "cpu", "--tiny", "--minutes", "0")
    assert "The time is over. Left out:\nyardstick: product float32, " in table
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert Counter(row["part"] for row in rows) == PARTS
    assert {(row["status"], row["reason"]) for row in rows} == {("left out", "the time was over")}


def test_without_a_gpu_it_ends_at_once(tmp_path: Path) -> None:
    (sentence,) = run(tmp_path).splitlines()
    assert sentence.startswith("There is no CUDA device") and sentence.endswith(".")
    assert list(tmp_path.iterdir()) == []
