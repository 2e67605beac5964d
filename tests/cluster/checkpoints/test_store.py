"""Checkpoints are whole or not there: damage is named, and a full disk costs nothing."""

from __future__ import annotations

import json
import logging
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.checkpoints import store
from cluster.checkpoints.store import (
    MANIFEST,
    NETWORKS,
    OPTIMIZERS,
    PROGRESS,
    Content,
    CorruptCheckpoint,
)
from tests.tiny import flip, tree

FILES = (NETWORKS, OPTIMIZERS, PROGRESS, MANIFEST)


def content(step: int) -> Content:
    generator = torch.Generator().manual_seed(step)
    return Content(
        networks={"a.weight": torch.randn(50, 7, generator=generator), "n": torch.tensor(step)},
        optimizers={"phase": {"state": {0: {"exp_avg": torch.randn(3, generator=generator)}}}},
        progress={"step": step, "samples": 8 * step, "world": 2},
    )


def save(directory: Path, step: int) -> store.Checkpoint:
    return store.write(directory, content(step))


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A directory with whole checkpoints of the steps 10 and 20."""
    save(tmp_path, 10)
    save(tmp_path, 20)
    return tmp_path


def test_round_trip(two: Path) -> None:
    found = store.newest(two)
    assert found is not None and found.step == 20 and found.path.name == "step-000000020"
    generator = torch.Generator().manual_seed(20)
    assert torch.equal(found.networks()["a.weight"], torch.randn(50, 7, generator=generator))
    exp_avg = found.optimizers()["phase"]["state"][0]["exp_avg"]
    assert torch.equal(exp_avg, torch.randn(3, generator=generator))
    assert found.progress() == {"step": 20, "samples": 160, "world": 2}
    assert found.networks_hash() != store.Checkpoint(two / "step-000000010").networks_hash()


def test_none_yet(tmp_path: Path) -> None:
    assert store.newest(tmp_path) is None
    assert store.newest(tmp_path / "missing") is None


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _empty(path: Path) -> None:
    os.truncate(path, 0)


def _remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    "damage", [_truncate, _empty, _remove, flip], ids=lambda f: f.__name__.strip("_")
)
@pytest.mark.parametrize("name", FILES)
def test_damage_is_named_and_the_one_before_is_taken(
    two: Path, name: str, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    damage(two / "step-000000020" / name)
    with caplog.at_level(logging.WARNING):
        found = store.newest(two)
    assert found is not None and found.step == 10
    (record,) = caplog.records
    assert "step-000000020" in record.getMessage()
    if (
        damage is not flip or name != MANIFEST
    ):  # a flip in the manifest accuses the file it is about
        assert name in record.getMessage()


@pytest.mark.parametrize(
    "manifest",
    [
        "[]",
        "{}",
        '{"../step-000000010/networks.safetensors": {"bytes": 1, "xxh3_128": ""}}',
        "{",
        "3",
        '{"networks.safetensors": 1}',
        "\udcff",
        '{"a": {"bytes": 1}}',
    ],
)
def test_an_odd_manifest_is_refused(two: Path, manifest: str) -> None:
    path = two / "step-000000020" / MANIFEST
    path.write_bytes(manifest.encode(errors="surrogateescape"))
    with pytest.raises(CorruptCheckpoint, match="manifest"):
        store.verify(two / "step-000000020")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_single_bit_goes_unseen(two: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(FILES))
    path = two / "step-000000020" / name
    whole = path.read_bytes()
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    changed = bytearray(whole)
    changed[bit // 8] ^= 1 << bit % 8
    path.write_bytes(changed)
    try:
        with pytest.raises(CorruptCheckpoint, match="step-000000020"):
            store.verify(two / "step-000000020")
    finally:
        path.write_bytes(whole)


def test_all_damaged_is_one_sentence_with_every_name(two: Path) -> None:
    flip(two / "step-000000010" / NETWORKS)
    (two / "step-000000020" / MANIFEST).unlink()
    before = tree(two)
    with pytest.raises(CorruptCheckpoint) as caught:
        store.newest(two)
    sentence = str(caught.value)
    assert "step-000000010" in sentence and "step-000000020" in sentence and "\n" not in sentence
    assert caught.value.exit_code == 2
    assert tree(two) == before


def test_a_save_cut_short_is_no_checkpoint(two: Path) -> None:
    """What kill -9 leaves behind in the middle of a save is passed over and cleared away."""
    partial = two / ".step-000000030.partial"
    shutil.copytree(two / "step-000000020", partial)
    (partial / MANIFEST).unlink()
    found = store.newest(two)
    assert found is not None and found.step == 20
    save(two, 30)
    assert not partial.exists()
    found = store.newest(two)
    assert found is not None and found.step == 30


@pytest.mark.parametrize("limit", [0, 30, 200, 1500, 1600])
def test_a_disk_that_refuses_to_grow_a_file(two: Path, limit: int) -> None:
    """The kernel cuts writes off at several places; nothing is lost, nothing left behind."""
    before = tree(two)
    sizes = [(two / "step-000000020" / name).stat().st_size for name in FILES]
    assert limit < max(sizes)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(OSError):
            save(two, 30)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert tree(two) == before
    assert sorted(p.name for p in two.iterdir()) == ["step-000000010", "step-000000020"]
    assert save(two, 30).step == 30


def test_the_manifest_says_what_lies_there(two: Path) -> None:
    manifest = json.loads((two / "step-000000010" / MANIFEST).read_text())
    assert {name: entry["bytes"] for name, entry in manifest.items()} == {
        name: (two / "step-000000010" / name).stat().st_size
        for name in (NETWORKS, OPTIMIZERS, PROGRESS)
    }
