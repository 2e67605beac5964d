"""Distortion at equal perception by shared bits: read by hand, with errors, and what is refused."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from cluster.results import shared_bits
from gencomp.errors import InputError
from tests import tiny
from tests.gencomp import vae_cases
from tests.gencomp.systems.urdp.test_training import raw

WEIGHTS = (0.0, 0.05)


@pytest.fixture(scope="module")
def budgets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two weights with 0, 2 and unlimited shared bits; one of them has a second seed."""
    folder = tmp_path_factory.mktemp("budgets")
    blobs = vae_cases.blobs(folder, side=28)
    for bits in (0, 2, None):
        for weight in WEIGHTS:
            own: dict[str, Any] = {"code.shared_bits": bits, "loss.perception_weight": weight}
            tiny.trained(folder / f"{bits}_{weight:g}", raw("end_to_end", blobs, **own))
    own = {"code.shared_bits": 2, "loss.perception_weight": 0.05, "training.seed": 5}
    tiny.trained(folder / "2_seed", raw("end_to_end", blobs, **own))
    other = {"code.shared_bits": 2, "code.levels": 4}
    tiny.trained(folder / "other", raw("end_to_end", blobs, **other))
    return folder


def give(run: Path, distortion: float, perception: float) -> None:
    """Write other metrics into a copy of a run: what is read of them is under test."""
    file = run / "result.json"
    metrics = {"mse_unit": distortion, "mse_unit_standard_error": 0.001}
    metrics |= {"critic_distance": perception, "critic_distance_standard_error": 0.01}
    file.write_text(json.dumps(json.loads(file.read_text()) | metrics))


class TestSharedBits:
    @pytest.fixture
    def known(self, budgets: Path, tmp_path: Path) -> list[Path]:
        found = []
        for name, place in {
            "0_0": (0.06, 3.0),
            "0_0.05": (0.10, 1.0),
            "2_0": (0.05, 3.0),
            "2_0.05": (0.09, 0.9),
            "2_seed": (0.07, 0.7),
            "None_0": (0.04, 3.0),
            "None_0.05": (0.06, 0.5),
        }.items():
            shutil.copytree(budgets / name, tmp_path / name)
            give(tmp_path / name, *place)
            found.append(tmp_path / name)
        return found

    def test_equal_perception_by_hand(self, known: list[Path]) -> None:
        found = shared_bits.curves(known, "mse_unit", "critic_distance")
        assert [budget.bits for budget in found.budgets] == [0, 2, math.inf]
        # The least perception that all reach is that of no bits.
        assert found.levels == (1.0,)
        values = [one.distortions[0] for one in found.budgets]
        # The seeds of two bits are one codec at (0.08, 0.8).
        expected = (0.10, 0.05 + 0.03 * 2 / 2.2, 0.04 + 0.02 * 2 / 2.5)
        assert [one.value for one in values if one] == pytest.approx(expected)
        assert all(one and one.interval and one.interval[0] < one.value for one in values)
        assert found.rate == pytest.approx(3 * math.log2(3)) and found.values == 3
        assert found.runs == 7

    def test_the_errors_of_perception_move_along_the_chord(self, known: list[Path]) -> None:
        found = shared_bits.curves(known[:2], "mse_unit", "critic_distance", [2.0])
        (read,) = found.budgets[0].distortions
        assert read is not None and read.interval is not None
        half = (read.interval[1] - read.interval[0]) / 2
        # Half of each distortion's error, and half of each perception's at 0.02 a unit.
        slope = 0.04 / 2
        error = math.sqrt(2 * (0.5 * 0.001) ** 2 + 2 * (0.5 * slope * 0.01) ** 2)
        assert half == pytest.approx(error * 2.093, rel=1e-3)  # Student's t of 20 images

    def test_what_is_not_reached_is_left_out(self, known: list[Path]) -> None:
        found = shared_bits.curves(known, "mse_unit", "critic_distance", [0.6, 5.0])
        assert [one.distortions[0] is None for one in found.budgets] == [True, True, False]
        # Beyond the least distortion a looser perception is no gain.
        assert [one.distortions[1].value for one in found.budgets] == [0.06, 0.05, 0.04]
        with pytest.raises(InputError, match=r"no run has a critic_distance of 0\.1 or less"):
            shared_bits.curves(known, "mse_unit", "critic_distance", [0.1])

    def test_runs_that_differ_in_something_else_are_refused(self, budgets: Path) -> None:
        with pytest.raises(InputError, match=r"differ in code\.levels \(3 and 4\)"):
            shared_bits.curves([budgets / "0_0", budgets / "other"], "mse_unit", "critic_distance")

    def test_a_method_without_shared_bits_is_refused(self, codec_run: Path) -> None:
        with pytest.raises(InputError, match="has no budget of shared bits"):
            shared_bits.curves([codec_run], "mse", "psnr")
