"""Population based training: who goes on from whose state, with which values."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gencomp.errors import InputError
from sweeps.population import Member, first_round, next_round
from sweeps.sweep_file import Sweep

SPACE = {
    "loss.mmd_weight": {"loguniform": [1, 100]},
    "loss.other": {"uniform": [-1, 1]},
    "loss.third": {"grid": ["a", "b", "c"]},
}


def sweep(**parts: Any) -> Sweep:
    made: dict[str, Any] = {"base": "x", "space": SPACE, "population": {"size": 8, "every": 10}}
    return Sweep.model_validate(made | parts)


class TestExchange:
    def test_the_first_round_is_random_and_repeatable(self) -> None:
        members = first_round(sweep())
        assert members == first_round(sweep()) != first_round(sweep(seed=1))
        assert len(members) == 8 and all(one.parent is None for one in members)
        assert len({one.point["loss.mmd_weight"] for one in members}) == 8

    def test_the_worst_quarter_goes_on_from_the_best(self) -> None:
        of, members = sweep(), first_round(sweep())
        scores = [0.5, 0.1, 0.9, 0.3, 0.2, 0.8, 0.4, 0.6]
        found = next_round(of, 1, members, scores)
        assert found == next_round(of, 1, members, scores)
        for number, one in enumerate(found):
            if number in (2, 5):
                assert one.parent in (1, 4) and one.point != members[one.parent].point
                value = one.point["loss.mmd_weight"]
                old = members[one.parent].point["loss.mmd_weight"]
                assert (
                    value in (1, 100)
                    or math.isclose(abs(math.log(value / old)), -math.log(0.8))
                    or (math.isclose(value / old, 1.2))
                )
            else:
                assert one == Member(members[number].point, number)

    def test_all_that_failed_are_replaced(self) -> None:
        members = first_round(sweep())
        scores = [math.inf] * 6 + [0.2, 0.1]
        found = next_round(sweep(), 3, members, scores)
        assert [one.parent for one in found[6:]] == [6, 7]
        assert all(one.parent in (6, 7) for one in found[:6])

    def test_none_to_go_on_from(self) -> None:
        with pytest.raises(InputError, match="no member of the population has a finite score"):
            next_round(sweep(), 2, first_round(sweep()), [math.inf] * 8)

    def test_equals_are_left_alone(self) -> None:
        members = first_round(sweep())
        found = next_round(sweep(), 1, members, [0.5] * 8)
        assert found == [Member(one.point, number) for number, one in enumerate(members)]

    @given(
        st.lists(st.one_of(st.floats(0, 10), st.just(math.inf)), min_size=8, max_size=8).filter(
            lambda scores: any(map(math.isfinite, scores))
        ),
        st.integers(1, 50),
    )
    def test_nobody_goes_on_from_a_worse_one_and_all_stay_in_the_space(
        self, scores: list[float], number: int
    ) -> None:
        members = first_round(sweep())
        found = next_round(sweep(), number, members, scores)
        assert len(found) == 8
        for before, (own, one) in zip(members, enumerate(found), strict=True):
            assert one.parent is not None and scores[one.parent] <= scores[own]
            assert math.isfinite(scores[one.parent])
            assert 1 <= one.point["loss.mmd_weight"] <= 100 and -1 <= one.point["loss.other"] <= 1
            assert one.parent != own or one.point == before.point


class TestRefusals:
    @pytest.mark.parametrize(
        ("parts", "said"),
        [
            ({"scheduler": {"grace": 5}}, "population leaves no room for search, scheduler"),
            ({"samples": 3}, "population leaves no room"),
            (
                {"space": {"networks.code_channels": {"grid": [1]}}},
                "cannot change networks.code_cha",
            ),
            ({"objective": {"against": ["nominal_bpp"]}}, "ranks trials by one number"),
            (
                {"population": {"size": 8, "every": 10, "replaced": 0.6}},
                "less than or equal to 0.5",
            ),
        ],
    )
    def test_sentences(self, parts: dict[str, Any], said: str) -> None:
        with pytest.raises(ValueError, match=said):
            sweep(**parts)
