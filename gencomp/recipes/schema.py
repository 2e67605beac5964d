"""The parts of a recipe that every system shares, with their ranges and units.

A recipe says everything about one stage of training. Systems add their own sections in
`gencomp/systems/<system>/recipe.py`. Nothing here imports torch: recipes are checked before
anything heavy starts.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """A part of a recipe: unknown keys are errors, values cannot change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _without_password(location: str) -> str:
    """Recipes are copied into every run."""
    if ":" in urlsplit(location).netloc.rpartition("@")[0]:
        raise ValueError(
            "a password has no place in a recipe: give it by the environment (AWS_ACCESS_KEY_ID and"
            " AWS_SECRET_ACCESS_KEY for s3://)"
        )
    return location


ShardSetLocation = Annotated[str, AfterValidator(_without_password)]
Size = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]


class MixtureSection(Section):
    """One of several shard sets that training draws from."""

    shards: ShardSetLocation = Field(description="shard set: a directory or URI")
    split: str = Field("train", description="split to train on")
    weight: int = Field(1, ge=1, le=1000, description="share of the stream, relative to the others")


class CutSection(Section):
    """The size to which images are cut; without any, each image stays whole."""

    resize: Size | None = Field(
        None, description="[height, width] to cover, then to crop: for stored images that differ"
    )
    crop: Size | None = Field(
        None, description="[height, width] of a crop: anywhere in training, else of the centre"
    )

    @property
    def size(self) -> Size | None:
        """[height, width] of every image, where one is stated."""
        return self.crop or self.resize


class TransformsSection(CutSection):
    """What happens to each image as it is read; random draws belong to (seed, position)."""

    flip: bool = Field(False, description="mirror half of the training images left to right")
    dither: bool = Field(False, description="training images as (x + u) / 256 with u in [0, 1)")


class DataSection(Section):
    shards: ShardSetLocation | None = Field(
        None, description="shard set made by `gencomp shards build`: a directory or URI"
    )
    split: str = Field("train", description="split to train on")
    mixture: tuple[MixtureSection, ...] = Field(
        (), description="several shard sets with weights, instead of shards and split"
    )
    batch_size: int = Field(64, ge=1, description="images in the global batch, over all workers")
    decode_threads: int = Field(1, ge=1, le=64, description="image decoding threads per worker")
    order: Literal["global", "windowed"] = Field(
        "global", description="shuffle all images, or shards and then windows (object stores)"
    )
    window: int = Field(10_000, ge=1, description="images shuffled together in order windowed")
    lanes: int = Field(
        8, ge=1, le=4096, description="windows read side by side in order windowed: k times nodes"
    )
    transforms: TransformsSection = TransformsSection()
    maps: tuple[str, ...] = Field(
        (), description="maps of pixels that come with each image, such as label or instance"
    )

    @model_validator(mode="after")
    def _one_origin(self) -> DataSection:
        if (self.shards is None) == (not self.mixture):
            raise ValueError("exactly one of shards and mixture must be given")
        return self


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


# What training writes down, and how long that is kept, has no influence on what it learns.
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
    seed: int = Field(321, ge=0, description="seed of weights, order and noise")
    log_every: int = Field(10, ge=1, description="steps between rows of the metrics log")
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints")
    checkpoint_async: bool = Field(
        True, description="write checkpoints in a thread while training goes on"
    )
    keep_checkpoints: int = Field(2, ge=1, description="newest checkpoints to keep")
    keep_best: int = Field(0, ge=0, description="best checkpoints to keep, by keep_best_metric")
    keep_best_metric: str | None = Field(
        None, description="metric of the evaluations, such as mse; the least is the best"
    )
    keep_every: int | None = Field(
        None, ge=1, description="keep the checkpoints of all multiples of so many steps for ever"
    )
    sample_every: int = Field(1000, ge=1, description="steps between sample grids")
    deterministic: bool = Field(True, description="ask torch for deterministic kernels")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="bfloat16: autocast of the networks, but for gradient penalties"
    )
    compile: bool = Field(False, description="torch.compile the networks, where that works")
    accumulate: int = Field(
        1, ge=1, description="global batches whose gradients are averaged for one update"
    )
    ema_decay: float | None = Field(
        None, gt=0, lt=1, description="average the weights; evaluate and end with the average"
    )

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
        None, description="shard set to evaluate on; by default the training set (first of several)"
    )
    split: str = Field("test", description="split to evaluate on")
    transforms: CutSection = CutSection()
    every: int = Field(1000, ge=1, description="steps between evaluations")
    batch_size: int = Field(128, ge=1, description="images in a global evaluation batch")
    limit: int | None = Field(None, ge=1, description="evaluate the first N images only")


class BaseRecipe(Section):
    """What every recipe has; `system` and `stage` select the model that adds the rest.

    Attributes:
        RATE_KEYS: the dotted keys that set the rate of the code; a stage without a code has none.
    """

    RATE_KEYS: ClassVar[tuple[str, ...]] = ()

    system: str
    stage: str
    data: DataSection
    optimizer: OptimizerSection = OptimizerSection()
    training: TrainingSection
    evaluation: EvaluationSection = EvaluationSection()

    @model_validator(mode="after")
    def _evaluations_state_a_size(self) -> BaseRecipe:
        """Where training cuts images, whole ones in evaluations must be meant."""
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
        """The statistics that training takes over the images of a batch, which must then be two or
        more; empty where there are none."""
        return ""

    def evaluation_statistics(self) -> str:
        """The same for the batches of evaluations."""
        return ""

    def evaluates_as_it_trains(self) -> bool:
        """Whether held-out images are resized and cropped to the size of the training images."""
        training, held_out = self.data.transforms, self.evaluation.transforms
        return (training.resize, training.crop) == (held_out.resize, held_out.crop)

    def parent_runs(self) -> dict[str, str]:
        """Earlier runs this stage starts from: role -> run directory."""
        return {}

    def evaluation_shards(self) -> str:
        """The shard set that is evaluated on."""
        return self.evaluation.shards or self.data.shards or self.data.mixture[0].shards
