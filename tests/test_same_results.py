"""The comparison of two checkouts sees one bit, and reads files without the project's code.

The runs themselves are left to the benchmark, which takes minutes; here their recipes are checked.
"""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from safetensors.torch import save_file

from benchmarks import same_results
from benchmarks.same_results import Scene
from gencomp import recipes

RESULTS: dict[str, Any] = {
    "runs": {"vae": {"curves": [{"step": 1, "vae/loss": 0.1}, {"step": 2, "vae/loss": 0.2}]}},
    "files": {"codec": {"payload": ["37ff0828"]}},
}
# What `gencomp compress` wrote as version 1: 23 bytes of header, 4 of payload, 4 of its checksum.
STREAM = bytes.fromhex("9d4701110464706c6340a8bdbff82f25ab40400104ba0437ff0828") + bytes(4)


def test_every_difference_is_a_line() -> None:
    other = copy.deepcopy(RESULTS)
    assert same_results.compare(RESULTS, other) == []
    other["runs"]["vae"]["curves"][1]["vae/loss"] = 0.2 + 2**-54
    other["runs"]["vae"]["curves"][0]["vae/kl"] = float("nan")
    del other["files"]["codec"]
    assert same_results.compare(RESULTS, other) == [
        "runs › vae › curves › 1 › vae/loss: 0.2 before, 0.20000000000000007 after",
        'files › codec › payload › 0: "37ff0828" before, nothing after',
        "runs › vae › curves › 0 › vae/kl: nothing before, NaN after",
    ]
    assert same_results.compare(other, copy.deepcopy(other)) == []


def test_one_bit_changes_the_hash_of_its_network_alone(tmp_path: Path) -> None:
    tensors = {"encoder.weight": torch.ones(3), "decoder.weight": torch.zeros(2, 2)}
    save_file(tensors, tmp_path / "a.safetensors")
    tensors["decoder.weight"][0, 0] = -0.0  # equal as a number, another bit
    save_file(tensors, tmp_path / "b.safetensors")
    a, b = (same_results.networks(tmp_path / f"{name}.safetensors") for name in "ab")
    assert a.keys() == {"encoder", "decoder"}
    assert a["encoder"] == b["encoder"]
    assert a["decoder"] != b["decoder"]


def test_the_payload_of_a_container_is_read_without_its_header(tmp_path: Path) -> None:
    (tmp_path / "stream").write_bytes(STREAM)
    scene = cast(Scene, SimpleNamespace(directory=tmp_path))
    assert same_results.payload(scene, "stream") == ["37ff0828"]


def test_there_is_a_valid_run_of_every_stage_that_ships() -> None:
    found = set()
    for name, line in same_results.STAGES.items():
        (source, *_), overrides = recipes.split_overrides(line.split())
        recipe = recipes.load(source, overrides)
        found.add((recipe.system, recipe.stage))
        # A run starts from runs that are trained before it.
        before = list(same_results.STAGES)[: list(same_results.STAGES).index(name)]
        parents = recipe.model_dump().get("parents", {}).values()
        assert {parent for parent in parents if parent} <= {f"runs/{one}" for one in before}, name
    assert found == set(recipes.RECIPES)
