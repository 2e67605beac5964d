"""The parts of a recipe that every system shares, with their ranges and units.

A recipe says everything about one stage of training. Systems add their own sections in
`gencomp/systems/<system>_recipe.py`. Nothing here imports torch: recipes are checked before
anything heavy starts.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """A part of a recipe: unknown keys are errors, values cannot change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataSection(Section):
    shards: str = Field(description="shard set: a directory made by `gencomp shards build`")
    split: str = Field("train", description="split to train on")
    batch_size: int = Field(64, ge=2, description="images in the global batch, over all workers")
    decode_threads: int = Field(1, ge=1, le=64, description="image decoding threads per worker")


class OptimizerSection(Section):
    """Adam with a multi-step decay of the learning rate."""

    learning_rate: float = Field(1e-3, gt=0, description="base learning rate")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = Field(
        (0.5, 0.999), description="Adam's decay rates of the two moments"
    )
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty added to the gradient")
    decay_epochs: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (), description="epochs from which the rate is multiplied by decay_factor, increasing"
    )
    decay_factor: float = Field(0.1, gt=0, le=1, description="factor at each of decay_epochs")

    @model_validator(mode="after")
    def _increasing(self) -> OptimizerSection:
        if list(self.decay_epochs) != sorted(set(self.decay_epochs)):
            raise ValueError("decay_epochs must increase")
        return self

    def rate_at(self, epoch: float) -> float:
        """Learning rate while epoch number `epoch` (0 = first, may be fractional) is seen."""
        passed = sum(epoch >= boundary for boundary in self.decay_epochs)
        return self.learning_rate * self.decay_factor**passed


class TrainingSection(Section):
    epochs: float | None = Field(None, gt=0, description="length in passes over the split")
    steps: int | None = Field(None, ge=1, description="length in steps (instead of epochs)")
    seed: int = Field(321, ge=0, description="seed of weights, order and noise")
    log_every: int = Field(10, ge=1, description="steps between rows of the metrics log")
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints")
    keep_checkpoints: int = Field(2, ge=1, description="newest checkpoints to keep")
    sample_every: int = Field(1000, ge=1, description="steps between sample grids")
    deterministic: bool = Field(True, description="ask torch for deterministic kernels")

    @model_validator(mode="after")
    def _one_length(self) -> TrainingSection:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("exactly one of epochs and steps must be given")
        return self


class EvaluationSection(Section):
    split: str = Field("test", description="split to evaluate on")
    every: int = Field(1000, ge=1, description="steps between evaluations")
    batch_size: int = Field(128, ge=2, description="images in a global evaluation batch")
    limit: int | None = Field(None, ge=2, description="evaluate the first N images only")


class BaseRecipe(Section):
    """What every recipe has; `system` and `stage` select the model that adds the rest."""

    system: str
    stage: str
    data: DataSection
    optimizer: OptimizerSection = OptimizerSection()
    training: TrainingSection
    evaluation: EvaluationSection = EvaluationSection()

    def parent_runs(self) -> dict[str, str]:
        """Earlier runs this stage starts from: role -> run directory."""
        return {}
