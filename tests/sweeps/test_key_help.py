"""What the help of a sweep says about the keys that its space may name."""

from __future__ import annotations

from sweeps import sweep_file
from sweeps.key_help import of_sweep


def test_what_is_searched_stands_beside_the_other_keys_of_the_base() -> None:
    sweep = sweep_file.load("dplc_joint_photos", {"training.steps": 70, "training.epochs": None})
    found = of_sweep(sweep, 100)
    text = " ".join(found.text.split())
    assert text.startswith("Keys of dplc_codec_photos (dplc/codec) that a space may name.")
    assert "λ, weight of the MMD; at least 0 (searched: 0.3 to 30, by logarithm)" in text
    assert "channels of the 4×4 code; 1 to 1024 (searched: 2, 4, 8, 16, 32)" in text
    assert "length in steps (instead of epochs); at least 1 (default: 70)" in text
    assert max(map(len, found.text.splitlines())) <= 100
    # Trials that keep other checkpoints are the same trials.
    assert "training.seed" in found.names and "training.keep_checkpoints" not in found.names


def test_a_population_may_vary_few_keys() -> None:
    found = of_sweep(sweep_file.load("dplc_population_photos", {}), 100)
    assert found.names == ("optimizer.learning_rate", "loss.mmd_weight")
