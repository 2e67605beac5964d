"""Sweep files: what they allow, the points they make, and the score in closed form."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gencomp.errors import InputError
from sweeps import sweep_file
from sweeps.sweep_file import Objective, Sweep


def sweep(**parts: Any) -> Sweep:
    base: dict[str, Any] = {
        "base": "dplc_codec_photos",
        "space": {"loss.mmd_weight": {"grid": [1]}},
    }
    return Sweep.model_validate(base | parts)


class TestPoints:
    def test_a_grid_is_the_product_in_order(self) -> None:
        made = sweep(space={"b": {"grid": [1, 2]}, "a": {"grid": ["x", "y"]}}, samples=7)
        assert list(sweep_file.points(made)) == [
            {"b": 1, "a": "x"},
            {"b": 1, "a": "y"},
            {"b": 2, "a": "x"},
            {"b": 2, "a": "y"},
        ]

    def test_random_draws_are_within_their_ranges_and_repeatable(self) -> None:
        made = sweep(
            space={
                "u": {"uniform": [-1, 3]},
                "g": {"grid": [8, 16]},
                "l": {"loguniform": [1e-3, 10]},
            },
            samples=200,
            seed=5,
        )
        points = list(sweep_file.points(made))
        assert points == list(sweep_file.points(made)) and len(points) == 400
        assert [list(p) for p in points[:2]] == [["u", "g", "l"]] * 2
        assert all(-1 <= p["u"] < 3 and 1e-3 <= p["l"] <= 10 for p in points)
        # Means of U[-1, 3] and of log10: five standard errors, wrong once in 10^6.
        u_mean = sum(p["u"] for p in points) / 400
        log_mean = sum(math.log10(p["l"]) for p in points) / 400
        assert u_mean == pytest.approx(1, abs=5 * 4 / math.sqrt(12 * 400))
        assert log_mean == pytest.approx(-1, abs=5 * 4 / math.sqrt(12 * 400))
        other = sweep(space={"u": {"uniform": [-1, 3]}}, seed=6)
        assert next(sweep_file.points(other))["u"] != points[0]["u"]

    def test_more_samples_of_a_random_space_keep_the_first(self) -> None:
        few = sweep(space={"u": {"uniform": [0, 1]}}, samples=3)
        many = sweep(space={"u": {"uniform": [0, 1]}}, samples=9)
        assert list(sweep_file.points(many))[:3] == list(sweep_file.points(few))


class TestScore:
    def test_closed_form(self) -> None:
        goal = Objective(minimise="mse", subject_to={"mmd": 0.02, "bpp": 0.5}, penalty=3)
        assert goal.score({"mse": 0.1, "mmd": 0.01, "bpp": 0.5}) == 0.1
        assert goal.score({"mse": 0.1, "mmd": 0.05, "bpp": 0.7}) == pytest.approx(
            0.1 + 3 * (0.03 + 0.2)
        )
        assert goal.score({"mse": 0.1, "mmd": -9.0, "bpp": -9.0}) == 0.1

    @pytest.mark.parametrize("mse", [None, math.nan, math.inf])
    def test_what_is_missing_or_not_finite_is_worst(self, mse: float | None) -> None:
        goal = Objective(minimise="mse", subject_to={"mmd": 0.02})
        assert goal.score({"mse": mse, "mmd": 0.0}) == math.inf
        assert goal.score({"mse": 0.1, "mmd": mse}) == math.inf
        assert goal.score({"mse": 0.1}) == math.inf

    @given(st.floats(0, 10), st.floats(0, 10), st.floats(0.01, 10))
    def test_never_below_the_objective_and_growing_with_the_excess(
        self, mse: float, mmd: float, penalty: float
    ) -> None:
        goal = Objective(minimise="mse", subject_to={"mmd": 1}, penalty=penalty)
        assert goal.score({"mse": mse, "mmd": mmd}) >= mse
        assert goal.score({"mse": mse, "mmd": mmd + 1}) >= goal.score({"mse": mse, "mmd": mmd})

    def test_unknown_metrics_are_named(self) -> None:
        with pytest.raises(InputError, match="names the metric ssim; known are mse, psnr"):
            Objective(minimise="ssim").require_known({"mse": 1, "psnr": 2})


class TestFiles:
    @pytest.mark.parametrize("name", ["dplc_rates_photos", "dplc_rates_celeba"])
    def test_shipped(self, name: str) -> None:
        loaded = sweep_file.load(name, {"training.steps": 3})
        assert loaded.overrides["training.steps"] == 3
        assert loaded.group_by == "networks.code_channels" and loaded.scheduler is not None

    def test_dump_and_load(self, tmp_path: Path) -> None:
        made = sweep(
            space={"a": {"grid": [1, "x", None]}, "b": {"loguniform": [1, 2]}},
            scheduler={"grace": 5},
            overrides={"data.shards": "/data"},
            objective={"subject_to": {"mmd": 0.1}},
        )
        (tmp_path / "s.yaml").write_text(sweep_file.dump(made))
        assert sweep_file.load(tmp_path / "s.yaml", {}) == made

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"xyz": 3}, "unknown key xyz; allowed here are base, budget, concurrent, gpu"),
            ({"penalty": 3}, "unknown key penalty; did you mean objective.penalty?"),
            ({"buget": 3}, "unknown key buget; did you mean budget?"),
            (
                {"objective": {"maximise": "psnr"}},
                "unknown key objective.maximise; allowed here are against, minimise",
            ),
            (
                {"space": {"a": {"choice": [1]}}},
                "space.a is {'choice': [1]}, but it needs one of grid",
            ),
            ({"space": {"a": [1, 2]}}, "space.a is [1, 2], but it needs one of grid"),
            ({"space": {"a": {"grid": [1], "extra": 2}}}, "unknown key space.a.grid.extra"),
            ({"space": {"a": {"grid": []}}}, "space.a.grid.grid is [], but"),
            ({"space": {}}, "a sweep needs a space, or a parent with every: true"),
            ({"space": {"a": {"uniform": [3, 1]}}}, "uniform needs low < high"),
            ({"space": {"a": {"loguniform": [0, 1]}}}, "loguniform needs 0 < low < high"),
            (
                {"space": {"a": {"uniform": [0, ".inf"]}}},
                "space.a.uniform.uniform.1 is '.inf', but",
            ),
            ({"group_by": "c"}, "group_by is c, but the space has loss.mmd_weight"),
            ({"scheduler": {"grace": 0}}, "scheduler.grace is 0, but it should be"),
            (
                {"budget": {"seconds": 5, "hours": 1}},
                "budget: seconds and hours exclude each other",
            ),
            ({"budget": {"trials": 0}}, "budget.trials is 0, but it should be"),
            ({"search": {}}, "search needs budget.trials"),
            ({"search": {"sampler": "cma"}}, "search.sampler is 'cma', but it should be 'tpe'"),
            (
                {"search": {}, "budget": {"trials": 3}, "samples": 2},
                "search leaves no room for group_by and samples",
            ),
            (
                {"objective": {"against": ["nominal_bpp"]}, "scheduler": {"grace": 5}},
                "a scheduler or population ranks trials by one number",
            ),
            ({"objective": {"against": ["mse"]}}, "minimise and against name a metric twice"),
            ({"workers": 0}, "workers is 0, but it should be"),
            ({"samples": "many"}, "samples is 'many', but it should be a valid integer"),
            ({"base": None}, "base is None, but"),
        ],
    )
    def test_wrong_ones(self, change: dict[str, Any], said: str, tmp_path: Path) -> None:
        raw: dict[str, Any] = {
            "base": "dplc_codec_photos",
            "space": {"loss.mmd_weight": {"grid": [1]}},
        }
        (tmp_path / "s.yaml").write_text(yaml.safe_dump(raw | change))
        with pytest.raises(InputError) as caught:
            sweep_file.load(tmp_path / "s.yaml", {})
        assert said in str(caught.value) and "\n" not in str(caught.value)

    def test_missing(self) -> None:
        with pytest.raises(
            InputError, match="shipped sweeps are dplc_front_photos, dplc_joint_celeba, "
        ):
            sweep_file.load("nothing", {})
