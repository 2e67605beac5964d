"""Precision, compilation, accumulation and moving averages around the same updates."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cluster.checkpoints import store
from cluster.runs import Run
from cluster.training import steps
from cluster.training.ema import Averages, warmed_up_decay
from cluster.training.worker_info import WorkerInfo
from gencomp.system import Batch, Phase, PhaseLoss, Progress, Update
from tests import tiny


class Line(Phase):
    """Fits y = w·x by the mean of the batch, so that averages of gradients have a closed form."""

    def __init__(self) -> None:
        super().__init__({"line": nn.Linear(1, 1, bias=False)}, trains=("line",))
        self.seen: list[torch.dtype] = []

    def forward(self, batch: Batch, draws: Any, progress: Progress) -> PhaseLoss:
        y = self.networks["line"](batch.images_BCHW)
        self.seen.append(y.dtype)
        loss = y.float().mean()
        return PhaseLoss(loss, {"mean": y.detach().float().mean()})


class OneLine:
    """The part of a system that steps need."""

    def __init__(self, updates: tuple[Update, ...]) -> None:
        self.phases = {"line": Line()}
        self.networks = nn.ModuleDict(dict(self.phases["line"].networks.items()))
        self._updates = updates

    def updates(self, progress: Progress) -> tuple[Update, ...]:
        return self._updates

    def learning_rates(self, phase: str, progress: Progress) -> tuple[float]:
        return (1.0,)


def make(photos: Path, updates: tuple[Update, ...], **training: Any) -> tuple[OneLine, steps.Steps]:
    overrides = {f"training.{key}": value for key, value in training.items()}
    system: Any = OneLine(updates)
    nn.init.zeros_(system.phases["line"].networks["line"].weight)
    optimizer = torch.optim.SGD(system.phases["line"].trained_parameters(), lr=0.0)
    recipe = tiny.checked(tiny.generator(photos, overrides))
    return system, steps.Steps(recipe, system, {"line": optimizer}, WorkerInfo())


def batches() -> Any:
    """Batches of 8 whose only value is their number: 1, 2, 3, ..."""
    places = torch.arange(8)
    values = (
        Batch(torch.full((8, 1), float(k)), places, places, places) for k in itertools.count(1)
    )
    return lambda: next(values)


FRESH, AGAIN = Update("line", fresh_batch=True), Update("line", fresh_batch=False)
START = Progress(0, 0, 100)


def test_accumulated_gradients_are_averaged(photos: Path) -> None:
    """The gradient of mean(w·x) is x: batches 1, 2, 3 give 2, and again when they are reused."""
    system, maker = make(photos, (FRESH, AGAIN, FRESH), accumulate=3)
    assert maker.samples(START) == 2 * 3 * 8
    take = batches()
    weight = system.phases["line"].networks["line"].weight
    values = []
    for updated in maker.step(START, take):
        assert updated.loss == updated.terms["mean"]
        values.append(weight.item())
    assert values == [-2.0, -4.0, -4.0 - 5.0]


def test_norms_of_gradients_are_terms_where_a_phase_asks_for_them(photos: Path) -> None:
    """They are those of the averaged gradients: batches 1 and 2 give 1.5."""
    system, maker = make(photos, (FRESH,), accumulate=2)
    (updated,) = maker.step(START, batches())
    assert {*updated.terms} == {"mean"}
    system.phases["line"].logs_gradients = True
    (updated,) = maker.step(START, batches())
    assert updated.terms["gradient_norm_line"].item() == 1.5


def test_the_first_update_needs_a_batch(photos: Path) -> None:
    _, maker = make(photos, (AGAIN,))
    with pytest.raises(RuntimeError, match="fresh batch"):
        list(maker.step(START, batches()))


def test_bfloat16_but_not_for_penalties(photos: Path) -> None:
    system, maker = make(photos, (FRESH,), precision="bfloat16")
    phase = system.phases["line"]
    list(maker.step(START, batches()))
    phase.second_order = True
    list(maker.step(START, batches()))
    assert phase.seen == [torch.bfloat16, torch.float32]
    assert phase.networks["line"].weight.dtype == torch.float32


def test_without_a_compiler_it_goes_on(
    photos: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("no compiler\nand a long story")

    monkeypatch.setattr(torch, "compile", broken)
    with caplog.at_level(logging.WARNING):
        _, maker = make(photos, (FRESH,), compile=True)
    assert "fails here (no compiler): not used" in caplog.text
    assert len(list(maker.step(START, batches()))) == 1


def test_the_average_has_its_closed_form() -> None:
    networks = nn.ModuleDict({"norm": nn.BatchNorm1d(2)})
    averages = Averages(networks, 0.75)
    expected = None
    for value in (1.0, 3.0, -2.0):
        for tensor in (networks["norm"].weight.data, networks["norm"].running_mean):
            assert isinstance(tensor, Tensor)
            tensor.fill_(value)
        averages.update()
        expected = value if expected is None else 0.75 * expected + 0.25 * value
    with averages.in_place():
        assert networks["norm"].weight.tolist() == [expected] * 2
        assert networks["norm"].running_mean.tolist() == [expected] * 2
    assert networks["norm"].weight.tolist() == [-2.0] * 2


def test_a_warm_average_forgets_its_start() -> None:
    decays = [warmed_up_decay(n, 0.999) for n in (0, 90, 8989, 8990, 10**6)]
    assert decays == pytest.approx([0.1, 0.91, 8990 / 8999, 0.999, 0.999])
    networks = nn.ModuleDict({"norm": nn.BatchNorm1d(1)})
    averages = Averages(networks, 0.25, warm_up=True)
    weight, expected = networks["norm"].weight, 1.0  # where a norm starts
    for decay, value in ((0.1, 3.0), (2 / 11, -2.0), (0.25, 5.0), (0.25, 6.0)):
        weight.data.fill_(value)
        averages.update()
        expected = decay * expected + (1 - decay) * value
    with averages.in_place():
        assert weight.item() == pytest.approx(expected, rel=1e-6)


def test_a_warm_average_does_not_read_a_count_from_a_device() -> None:
    """The count may lie on a GPU, where reading it would wait for the step; here on no device."""
    networks = nn.ModuleDict({"a": nn.Linear(2, 2)})
    averages = Averages(networks, 0.25, warm_up=True)
    average, weight = torch.zeros(2), torch.ones(2)
    update = averages._averaged.multi_avg_fn
    update([average], [weight], torch.empty((), dtype=torch.long, device="meta"))
    assert torch.equal(average, torch.full((2,), 0.9))


@pytest.mark.parametrize(("step", "warm_up"), [(3, False), (4, False), (11, False), (3, True)])
def test_a_resumed_average_has_the_same_bits(
    step: int, warm_up: bool, photos: Path, tmp_path: Path
) -> None:
    averaged = {"training.ema_decay": 0.9, "training.ema_warm_up": warm_up}
    raw = tiny.generator(photos, {**averaged, "training.accumulate": 2})
    straight, _ = tiny.trained(tmp_path / "straight", raw)
    tiny.trained(tmp_path / "run", raw, tiny.stop_after(step))
    run, outcome = tiny.trained(tmp_path / "run", raw)
    assert outcome.finished
    tiny.assert_identical(tiny.state(run), tiny.state(straight))
    assert tiny.rows(run) == tiny.rows(straight)
    assert tiny.result(run) == tiny.result(straight)


def test_a_run_ends_with_its_average(photos: Path, tmp_path: Path) -> None:
    plain, _ = tiny.trained(tmp_path / "plain", tiny.generator(photos))
    raw = tiny.generator(photos, {"training.ema_decay": 0.5})
    averaged, _ = tiny.trained(tmp_path / "averaged", raw)
    assert saved(averaged, 8)["generator.layers.0.weight"].ne(0).any()
    # The same steps were made: only what is kept of them differs.
    tiny.assert_identical(saved(plain, 8), saved(averaged, 8))
    assert store.Checkpoint(averaged.checkpoints / "step-000000012").averages() is None
    assert tiny.result(averaged)["mse"] != tiny.result(plain)["mse"]
    # Finished: a second call only evaluates again, with the same weights.
    again, outcome = tiny.trained(tmp_path / "averaged", raw)
    assert outcome.finished and tiny.result(again) == tiny.result(averaged)


def saved(run: Run, step: int) -> dict[str, Tensor]:
    return store.Checkpoint(run.checkpoints / f"step-{step:09d}").networks()
