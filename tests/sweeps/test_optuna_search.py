"""Proposals: a pure function of what there was before, that finds what random draws do not."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from sweeps.proposals import PastProposal, Proposal
from sweeps.results import pareto_front
from sweeps.sweep_file import Sweep, contains

pytest.importorskip("optuna")
from sweeps.optuna_search import propose

SPACE = {
    "a": {"uniform": [-5, 5]},
    "b": {"loguniform": [1e-3, 1e3]},
    "c": {"grid": [1, [2, 3], None]},
}
Values = Callable[[dict[str, Any]], tuple[float, ...]]


def sweep(sampler: str = "tpe", against: tuple[str, ...] = (), **parts: Any) -> Sweep:
    made: dict[str, Any] = {
        "base": "dplc_codec_photos",
        "space": SPACE,
        "search": {"sampler": sampler, "population": 6},
        "budget": {"trials": 99},
        "objective": {"against": against},
    }
    return Sweep.model_validate(made | parts)


def bowl(point: dict[str, Any]) -> tuple[float, ...]:
    """Least, 0, at a = 1, b = 100, c = 1."""
    return ((point["a"] - 1) ** 2 + (math.log10(point["b"]) - 2) ** 2 + (point["c"] != 1),)


def searched(
    of: Sweep, count: int, values: Values = bowl, killed: bool = False
) -> list[PastProposal]:
    """A number of trials, one after the other; if killed, all goes through JSON after each."""
    past: list[PastProposal] = []
    for _ in range(count):
        found = propose(of, past)
        assert found is not None
        past.append(PastProposal(found, "finished", values(found.point)))
        if killed:
            past = [
                PastProposal(
                    Proposal(**json.loads(json.dumps(one.proposal._asdict()))),
                    "finished",
                    one.values,
                )
                for one in past
            ]
    return past


def points(past: list[PastProposal]) -> list[dict[str, Any]]:
    return [one.proposal.point for one in past]


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_a_search_goes_on_as_if_it_had_not_been_killed(sampler: str) -> None:
    whole = searched(sweep(sampler), 20)
    assert points(searched(sweep(sampler), 20, killed=True)) == points(whole)
    assert points(searched(sweep(sampler, seed=1), 1)) != points(whole[:1])
    assert all(contains(sweep(sampler), point) for point in points(whole))
    assert len({json.dumps(point) for point in points(whole)}) == 20


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_samplers_learn(sampler: str) -> None:
    """The last ten of fifty lie lower than random ones. Medians of fixed seeds: no chance."""

    def late(name: str) -> float:
        finals = [
            one.values[0] for seed in range(2) for one in searched(sweep(name, seed=seed), 50)[-10:]
        ]
        return sorted(finals)[len(finals) // 2]

    assert late(sampler) < late("random") / 2


def test_running_and_failed_trials_are_heeded() -> None:
    past = searched(sweep(), 15)
    plain = propose(sweep(), past)
    assert plain is not None
    running = propose(sweep(), [*past, PastProposal(plain, "running")])
    failed = propose(sweep(), [*past, PastProposal(plain, "failed")])
    assert running is not None and failed is not None
    assert plain.point not in (running.point, failed.point)


def test_scores_of_stopped_trials_are_heeded() -> None:
    """The next point lies much lower than one after trials that were all stopped with one score."""

    def next_one(seed: int, score: Callable[[PastProposal], float]) -> float:
        past = searched(sweep(seed=seed), 15)
        stopped = [one._replace(state="stopped", scores={5: score(one)}, values=()) for one in past]
        found = propose(sweep(seed=seed), stopped)
        assert found is not None
        return bowl(found.point)[0]

    learned = [next_one(seed, lambda one: one.values[0]) for seed in range(8)]
    blind = [next_one(seed, lambda one: 1.0) for seed in range(8)]
    assert sum(learned) < sum(blind) / 2


@pytest.mark.parametrize("against", [(), ("bpp",)])
@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_trials_that_diverged_do_no_harm(sampler: str, against: tuple[str, ...]) -> None:
    def diverging(point: dict[str, Any]) -> tuple[float, ...]:
        values = (*bowl(point), *((point["a"] + 1) ** 2 for _ in against))
        return tuple(math.inf for _ in values) if point["a"] < 0 else values

    found = searched(sweep(sampler, against), 30, diverging)
    assert any(math.isfinite(one.values[0]) for one in found)


def test_several_objectives_give_a_front() -> None:
    """Along a the two bowls trade off between −1 and 1; the front lies there."""
    of = sweep("nsga2", ("bpp",), space={"a": {"uniform": [-5, 5]}})
    past = searched(of, 40, lambda point: ((point["a"] - 1) ** 2, (point["a"] + 1) ** 2))
    rows: list[dict[str, Any]] = [
        {"trial": str(i), "status": "finished", "mse": one.values[0], "bpp": one.values[1]}
        for i, one in enumerate(past)
    ]
    front = [
        past[int(row["trial"])].proposal.point["a"] for row in pareto_front(rows, of.objective)
    ]
    assert len(front) >= 5 and all(-1.5 < a < 1.5 for a in front)
    assert front == sorted(front, reverse=True)


def test_a_space_that_is_used_up() -> None:
    small = sweep(space={"a": {"grid": [1, 2, 3]}, "b": {"grid": ["x", "y"]}})
    past = searched(small, 6, lambda point: (float(point["a"]),))
    assert len({json.dumps(point) for point in points(past)}) == 6
    assert propose(small, past) is None


def test_points_of_another_space_are_left_out() -> None:
    past = searched(sweep(), 12)
    narrow = sweep(space=SPACE | {"a": {"uniform": [2, 3]}})
    assert not all(contains(narrow, point) for point in points(past))
    found = propose(narrow, past)
    assert found is not None and 2 <= found.point["a"] <= 3
    assert propose(sweep(space={"z": {"uniform": [0, 1]}}), past) is not None


def test_the_last_points_of_a_large_grid_are_found() -> None:
    """Each point once, though the sampler would hardly ever draw the last of them."""
    of = sweep("random", space={"a": {"grid": list(range(30))}, "b": {"grid": [0, [1, 2]]}})
    found = points(searched(of, 60, lambda point: (0.0,)))
    assert len({json.dumps(point) for point in found}) == 60
    past = [PastProposal(Proposal(point, {}), "finished", (0.0,)) for point in found]
    assert propose(of, past) is None
