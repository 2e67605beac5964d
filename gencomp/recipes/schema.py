"""The parts of a recipe that every system shares, with their ranges and units.

A recipe describes one stage of training completely. Systems add their own sections in
`gencomp/systems/<system>/recipe.py`. Nothing here imports torch, since recipes are checked before
anything heavy starts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """A part of a recipe; unknown keys are errors, and values cannot change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class WritingSection(Section):
    """How a codec writes files; what a reader needs of it is in the files.

    So a finished run may be given other values than those that it was trained with.
    """


def _without_password(location: str) -> str:
    """Refuse a location with a password, since recipes are copied into every run."""
    if ":" in urlsplit(location).netloc.rpartition("@")[0]:
        raise ValueError(
            "a password has no place in a recipe: give it in the environment (AWS_ACCESS_KEY_ID and"
            " AWS_SECRET_ACCESS_KEY for s3://)"
        )
    return location


ShardSetLocation = Annotated[str, AfterValidator(_without_password)]
Size = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]


class MixtureSection(Section):
    """One of several shard sets that training draws from."""

    shards: ShardSetLocation = Field(description="directory or URI of the shard set")
    split: str = Field("train", description="split to train on")
    weight: int = Field(1, ge=1, le=1000, description="weight of the set relative to the others")


class CutSection(Section):
    """The size to which images are cut; if none is stated, each image stays whole."""

    resize: Size | None = Field(
        None,
        description="[height, width] in pixels that each image is scaled to cover and then cropped"
        " to, for images of different sizes",
    )
    crop: Size | None = Field(
        None,
        description="[height, width] in pixels of a crop, at a random place in training and at the"
        " centre elsewhere",
    )

    @property
    def size(self) -> Size | None:
        """The [height, width] of every image, if one is stated."""
        return self.crop or self.resize


class HeldOutSection(CutSection):
    """Changes to each held-out image as it is read."""

    whole: bool = Field(
        False,
        description="keep all of an image that was scaled to cover resize, whatever its shape, and"
        " not the centre alone",
    )

    @property
    def size(self) -> Size | None:
        return None if self.whole else super().size

    @model_validator(mode="after")
    def _a_size_to_cover(self) -> HeldOutSection:
        if self.whole and (self.resize is None or self.crop is not None):
            raise ValueError("whole needs resize, the size that images cover, and no crop")
        return self


class TransformsSection(CutSection):
    """Changes to each image as it is read; their random numbers depend on (seed, position)."""

    flip: bool = Field(False, description="mirror half of the training images left to right")
    dither: bool = Field(
        False, description="train on (x + u) / 256 with u uniform on [0, 1) for pixel values x"
    )


class DataSection(Section):
    shards: ShardSetLocation | None = Field(
        None, description="directory or URI of a shard set made by `gencomp shards build`"
    )
    split: str = Field("train", description="split to train on")
    mixture: tuple[MixtureSection, ...] = Field(
        (), description="several shard sets with weights, instead of shards and split"
    )
    batch_size: int = Field(
        64, ge=1, description="number of images in the global batch, over all workers"
    )
    decode_threads: int = Field(
        1, ge=1, le=64, description="number of threads that decode images in each worker"
    )
    order: Literal["global", "windowed"] = Field(
        "global",
        description="global shuffles all images; windowed shuffles shards and then the images"
        " within windows, for object stores",
    )
    window: int = Field(
        10_000, ge=1, description="number of images in a window of the windowed order"
    )
    lanes: int = Field(
        8,
        ge=1,
        le=4096,
        description="number of windows that the windowed order reads side by side, a multiple of"
        " the number of nodes",
    )
    transforms: TransformsSection = TransformsSection()
    maps: tuple[str, ...] = Field(
        (), description="pixel maps that are read with each image, such as label or instance"
    )

    @model_validator(mode="after")
    def _one_origin(self) -> DataSection:
        if (self.shards is None) == (not self.mixture):
            raise ValueError("exactly one of shards and mixture must be given")
        return self


_Factor = Annotated[float, Field(gt=0, le=1)]


class OptimizerSection(Section):
    """Adam with a multi-step decay of the learning rate."""

    learning_rate: float = Field(1e-3, gt=0, description="base learning rate")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = Field(
        (0.5, 0.999), description="decay rates of Adam's two moments"
    )
    weight_decay: float = Field(
        0.0, ge=0, description="weight of the L2 penalty that is added to the gradient"
    )
    decay_epochs: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (),
        description="epochs at which the learning rate is multiplied by decay_factor, in"
        " increasing order",
    )
    decay_factor: _Factor | tuple[_Factor, ...] = Field(
        0.1,
        description="factor of the learning rate at each of decay_epochs, or a list with the factor"
        " at each of them",
    )

    @model_validator(mode="after")
    def _increasing(self) -> OptimizerSection:
        if list(self.decay_epochs) != sorted(set(self.decay_epochs)):
            raise ValueError("decay_epochs must increase")
        return self

    @model_validator(mode="after")
    def _a_factor_each(self) -> OptimizerSection:
        factors = self.decay_factor
        if isinstance(factors, tuple) and len(factors) != len(self.decay_epochs):
            raise ValueError(
                f"decay_factor lists {len(factors)} factors for {len(self.decay_epochs)}"
                " decay_epochs, but there must be one for each"
            )
        return self

    def rate_at(self, epoch: float) -> float:
        """The learning rate during an epoch, counted from 0 and possibly fractional."""
        passed = sum(epoch >= boundary for boundary in self.decay_epochs)
        if isinstance(self.decay_factor, tuple):
            return self.learning_rate * math.prod(self.decay_factor[:passed])
        return self.learning_rate * self.decay_factor**passed


# These fields say what training records and how long that is kept; they do not change what it
# learns.
RECORD_FIELDS = frozenset(
    {
        "log_every",
        "checkpoint_every",
        "checkpoint_async",
        "keep_checkpoints",
        "keep_best",
        "keep_best_metric",
        "keep_every",
        "sample_every",
    }
)


class TrainingSection(Section):
    epochs: float | None = Field(None, gt=0, description="length in passes over the split")
    steps: int | None = Field(None, ge=1, description="length in steps (instead of epochs)")
    seed: int = Field(
        321, ge=0, description="seed of the weights, of the order of images and of all noise"
    )
    log_every: int = Field(10, ge=1, description="number of steps between rows of the metrics log")
    checkpoint_every: int = Field(500, ge=1, description="number of steps between checkpoints")
    checkpoint_async: bool = Field(
        True, description="write checkpoints in a thread while training goes on"
    )
    keep_checkpoints: int = Field(2, ge=1, description="number of newest checkpoints to keep")
    keep_best: int = Field(
        0, ge=0, description="number of best checkpoints to keep, ranked by keep_best_metric"
    )
    keep_best_metric: str | None = Field(
        None,
        description="metric of the evaluations, such as mse, that ranks checkpoints; lower is"
        " better",
    )
    keep_every: int | None = Field(
        None,
        ge=1,
        description="keep for ever each checkpoint whose step is a multiple of this number",
    )
    sample_every: int = Field(1000, ge=1, description="number of steps between sample grids")
    deterministic: bool = Field(True, description="make torch use deterministic kernels")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="precision of the networks; bfloat16 uses autocast, except in gradient"
        " penalties",
    )
    compile: bool = Field(
        False, description="compile the networks with torch.compile, where that works"
    )
    accumulate: int = Field(
        1, ge=1, description="number of global batches whose gradients one update averages"
    )
    ema_decay: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="decay of a moving average of the weights, which is then evaluated and is the"
        " result of training",
    )
    ema_warm_up: bool = Field(
        False,
        description="let the decay grow as (1 + n)/(10 + n) with the number n of steps until it"
        " reaches ema_decay, so that the average soon forgets the start",
    )

    @model_validator(mode="after")
    def _a_decay_to_reach(self) -> TrainingSection:
        if self.ema_warm_up and self.ema_decay is None:
            raise ValueError("ema_warm_up needs ema_decay, the decay that it ends at")
        return self

    @model_validator(mode="after")
    def _one_length(self) -> TrainingSection:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("exactly one of epochs and steps must be given")
        return self

    @model_validator(mode="after")
    def _best_by_something(self) -> TrainingSection:
        if self.keep_best and not self.keep_best_metric:
            raise ValueError("keep_best needs keep_best_metric, a metric of the evaluations")
        if self.keep_best_metric and not self.keep_best:
            raise ValueError("keep_best_metric needs keep_best, the number of checkpoints to keep")
        return self

    @model_validator(mode="after")
    def _every_is_reached(self) -> TrainingSection:
        if self.keep_every is not None and self.keep_every % self.checkpoint_every:
            raise ValueError(
                f"keep_every is {self.keep_every}, but it must be a multiple of checkpoint_every, "
                f"{self.checkpoint_every}: there are no checkpoints of other steps"
            )
        return self


class EvaluationSection(Section):
    shards: ShardSetLocation | None = Field(
        None,
        description="directory or URI of the shard set to evaluate on; by default the first set"
        " that training uses",
    )
    split: str = Field("test", description="split to evaluate on")
    transforms: HeldOutSection = HeldOutSection()
    every: int = Field(1000, ge=1, description="number of steps between evaluations")
    batch_size: int = Field(128, ge=1, description="number of images in a global evaluation batch")
    limit: int | None = Field(
        None, ge=1, description="number of images to evaluate, from the first; null for all"
    )


class BaseRecipe(Section):
    """The parts of every recipe; `system` and `stage` select the model that adds the rest.

    Attributes:
        RATE_KEYS: the dotted keys that set the rate of the code; a stage without a code has none.
        MEASURES: the role of the parent run that a run of this stage does no more than measure, so
            that its metrics are shown as those of that run; None for every other stage.
        FILE_KEYS: the dotted keys that name files by their paths. A path is no part of what
            identifies a run; the file's hash, under another key, is.
        DATA_KEYS: the dotted keys that a run may take from its training set (`from_classes`).
    """

    RATE_KEYS: ClassVar[tuple[str, ...]] = ()
    MEASURES: ClassVar[str | None] = None
    FILE_KEYS: ClassVar[tuple[str, ...]] = ()
    DATA_KEYS: ClassVar[tuple[str, ...]] = ()

    system: str
    stage: str
    data: DataSection
    optimizer: OptimizerSection = OptimizerSection()
    training: TrainingSection
    evaluation: EvaluationSection = EvaluationSection()

    @model_validator(mode="after")
    def _evaluations_state_a_size(self) -> BaseRecipe:
        """Require a stated evaluation size where training cuts images, so that none is assumed."""
        training = self.data.transforms
        if training.size and "transforms" not in self.evaluation.model_fields_set:
            cut = {"resize": training.resize, "crop": training.crop}
            same = ", ".join(f"{name}: {list(size)}" for name, size in cut.items() if size)
            raise ValueError(
                "data.transforms cut the training images to a size, so evaluation.transforms must"
                f" be stated: {{{same}}} for held-out images of the same size, {{}} for whole ones"
            )
        return self

    @model_validator(mode="after")
    def _batches_are_large_enough(self) -> BaseRecipe:
        if self.data.batch_size < 2 and (what := self.batch_statistics()):
            raise ValueError(f"data.batch_size is 1, but {what} need 2 images or more in a batch")
        for key in ("batch_size", "limit"):
            if getattr(self.evaluation, key) == 1 and (what := self.evaluation_statistics()):
                raise ValueError(f"evaluation.{key} is 1, but {what} need 2 images or more")
        return self

    def batch_statistics(self) -> str:
        """The name of the statistics that training takes over the images of a batch.

        A batch must then hold two images or more. It is empty where there are no such statistics.
        """
        return ""

    def evaluation_statistics(self) -> str:
        """The name of the statistics that evaluations take over the images of a batch, or empty."""
        return ""

    def evaluates_as_it_trains(self) -> bool:
        """Whether held-out images are resized and cropped to the size of the training images."""
        training, held_out = self.data.transforms, self.evaluation.transforms
        same = (training.resize, training.crop) == (held_out.resize, held_out.crop)
        return same and not held_out.whole

    def from_classes(self, names: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """The values that a run takes from its training set, by dotted key of the recipe.

        They hold where the recipe leaves such a key empty, and are no part of what identifies a
        run.

        Args:
            names: the names of the ids 0, 1, ... of each map of the images that has such names.
        """
        return {}

    def require_classes(self, names: Mapping[str, Sequence[str]]) -> None:
        """Raise `InputError` if the recipe has another number of classes than the training set.

        Args:
            names: as in `from_classes`.
        """

    def parent_runs(self) -> dict[str, str]:
        """The directories of the earlier runs that this stage starts from, by role."""
        return {}

    def evaluation_shards(self) -> str:
        """The shard set that evaluations use."""
        return self.evaluation.shards or self.data.shards or self.data.mixture[0].shards
