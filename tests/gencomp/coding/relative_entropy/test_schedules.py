"""Schedules: the published ones, equal pieces, exact numbers, and the choice among them."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest

from gencomp.coding import portable
from gencomp.coding.latent_model import Gaussian
from gencomp.coding.relative_entropy import auxiliary, schedules
from gencomp.coding.relative_entropy.overhead import T32, T1000, like_a_model

POWER_LAW = {
    1: [1],
    2: [0.579763, 0.420237],
    3: [0.421465, 0.335413, 0.243122],
    5: [0.282024, 0.241330, 0.200890, 0.159874, 0.115883],
}
STEPS_T32 = """3.479 3.409 3.346 3.288 3.237 3.191 3.152 3.120 3.093 3.071 3.053 3.038 3.021 2.999
    2.964 2.902 2.798 2.624 2.340 1.875"""


def parts(schedule: int, pieces: int) -> np.ndarray:
    return np.diff(schedules.times(schedule, pieces), prepend=0)


def steps(target: Gaussian, schedule: int, pieces: int) -> np.ndarray:
    """The relative entropy of each piece."""
    return np.diff(auxiliary.cumulative_kl(*target, schedules.times(schedule, pieces)), prepend=0)


@pytest.mark.parametrize("pieces", POWER_LAW)
def test_power_law(pieces: int) -> None:
    assert parts(schedules.POWER_LAW, pieces) == pytest.approx(POWER_LAW[pieces], abs=1e-6)


def test_power_law_s_pieces() -> None:
    found = steps(T32, schedules.POWER_LAW, 20)
    assert found == pytest.approx(np.array(STEPS_T32.split(), float), abs=6e-4)
    assert found.sum() == pytest.approx(60, abs=1e-6)
    small = steps(Gaussian(np.array([2.0]), np.array([0.05])), schedules.POWER_LAW, 2)
    assert small == pytest.approx([1.3021, 3.1949], abs=1e-4)


def test_equal_variances() -> None:
    for pieces in (1, 3, 1000):
        expected = np.full(pieces, 1 / pieces)
        assert parts(schedules.EQUAL_VARIANCES, pieces) == pytest.approx(expected, abs=2e-12)


@pytest.mark.parametrize("schedule", [schedules.POWER_LAW, schedules.EQUAL_VARIANCES])
def test_pieces_of_any_number_are_the_whole(schedule: int) -> None:
    """The specified ones, for every number of pieces; families of more schedules for five."""
    for pieces in range(1, 1001):
        found = parts(schedule, pieces)
        assert found.min() > 0 and found.sum() == pytest.approx(1, abs=1e-12)


def test_an_exponent_of_1_gives_equal_variances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedules, "_EXPONENT", 1.0)
    for pieces in (1, 2, 13, 117, 1000):
        equal = np.arange(1, pieces + 1) / pieces
        assert schedules._power_law(pieces) == pytest.approx(equal, abs=1e-12)


@pytest.mark.parametrize("schedule", range(schedules.COUNT))
def test_times_rise_to_1_in_exact_steps(schedule: int) -> None:
    for pieces in (1, 2, 13, 117, 1000):
        times_K = schedules.times(schedule, pieces)
        assert times_K[-1] == 1
        assert parts(schedule, pieces).min() > 0
        assert parts(schedule, pieces).sum() == pytest.approx(1, abs=1e-12)
        scaled = np.ldexp(times_K, 40)
        assert np.array_equal(scaled, np.rint(scaled))


@pytest.mark.parametrize("schedule", range(2, schedules.COUNT))
def test_pieces_of_the_reference_are_equal(schedule: int) -> None:
    spread, share = schedules._reference(schedule)
    bend = -spread - math.log1p(-spread)  # twice the relative entropy of a latent without a mean
    square = share / (1 - share) * bend
    target = Gaussian(np.array([math.sqrt(square)]), np.array([math.sqrt(1 - spread)]))
    found = steps(target, schedule, 20)
    assert found == pytest.approx(np.full(20, found.mean()), abs=1e-6)
    assert found.sum() == pytest.approx((bend + square) / 2)


def test_every_machine_has_the_same_times() -> None:
    """All that is computed is rounded correctly by IEEE 754, so one hash holds everywhere."""
    digest = hashlib.blake2b(digest_size=8)
    for schedule in range(schedules.COUNT):
        for pieces in (1, 2, 3, 5, 8, 13, 21, 144):
            digest.update(schedules.times(schedule, pieces).astype("<f8").tobytes())
    assert digest.hexdigest() == "06e3791f16f03690"
    # The one time of schedules of up to 60 pieces that another logarithm is known to change.
    times_K = schedules.times(48, 55)
    assert (
        hashlib.blake2b(times_K.astype("<f8").tobytes(), digest_size=8).hexdigest()
        == "dc11641f783b30c2"
    )


def test_own_logarithm_and_exponential() -> None:
    x = np.concatenate([np.geomspace(1e-12, 1e6, 400), [0.5, 1, 2]])
    assert portable.log(x, schedules._LN_2) == pytest.approx(np.log(x), rel=4e-16, abs=4e-16)
    y = np.linspace(-30, 5, 500)
    assert schedules._exp(y) == pytest.approx(np.exp(y), rel=4e-15)


class TestBest:
    def test_its_pieces_are_nearly_equal(self) -> None:
        for target in (T32, T1000, *like_a_model(20)):
            (schedule,) = schedules.best([target], [16])
            found = steps(target, schedule, 16)
            spreads = [steps(target, one, 16).std() for one in range(schedules.COUNT)]
            assert found.std() == pytest.approx(min(spreads), rel=0.01)
            assert found.std() < 0.25 * found.mean()

    def test_a_layer_has_one_unless_another_one_pays(self) -> None:
        alike = [like_a_model(1)[0]] * 5
        odd = Gaussian(np.zeros(50), np.full(50, 2.0**-6))  # no nats in the means
        found = schedules.best([*alike, odd], [13] * 6)
        assert len(set(found[:5])) == 1
        assert found[5] == 46 != found[0]  # scale 2^−12/2
        nearly = Gaussian(alike[0].mean_D, alike[0].scale_D * 1.001)
        assert len(set(schedules.best([*alike, nearly], [13] * 6))) == 1

    def test_a_narrow_latent_is_not_left_to_the_last_piece(self) -> None:
        """Unequal pieces of many latents cost little; of one latent they may cost the whole."""
        wide = like_a_model(1)[0]
        narrow = Gaussian(np.append(wide.mean_D, 0.5), np.append(wide.scale_D, 1e-3))
        (schedule,) = schedules.best([narrow], [13])
        left = 1 - schedules.times(schedule, 13)[-2]
        assert np.log1p(left / 1e-6) / 2 < 6.5

    def test_nothing(self) -> None:
        assert schedules.best([], []) == []
