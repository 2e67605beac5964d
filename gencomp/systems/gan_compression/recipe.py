"""The recipes of generative compression, one model for each stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field, model_validator

from gencomp.errors import InputError
from gencomp.recipes.schema import BaseRecipe, OptimizerSection, Section
from gencomp.systems.gan_compression.writing import MASK, CodecSection, class_ids

Mode = Literal["global", "global_plus", "conditional", "selective"]
GanLoss = Literal["lsgan", "vanilla", "hinge", "wgan_gp"]
Preset = Literal["paper", "repo", "hific"]

_Decay = Annotated[float, Field(ge=0, lt=1)]


class LabelsSection(Section):
    """The label maps, and who sees them.

    An id that is not below the number of classes counts as the last class.
    """

    mode: Mode = Field(
        "global",
        description="global uses no labels; global_plus shows them to the discriminator in"
        " training; conditional sends them, for encoder, decoder and discriminator; selective sends"
        " them too, and the code of chosen regions only",
    )
    classes: int = Field(35, ge=1, le=65536, description="number of classes of the label map")
    class_names: tuple[str, ...] = Field(
        (),
        description="names of the classes 0, 1, ..., by which codec.keep may name them, or of all"
        " but the last; by default a run takes those of its shard set",
    )
    map: str = Field("label", description="name of the map of class ids in the shard set")
    instances: str | None = Field(
        None,
        description="name of the map of instance ids in the shard set, whose boundaries are one"
        " more plane; null for none",
    )
    kept: Literal["instances", "box"] = Field(
        "instances",
        description="regions that selective training keeps of an image: instances is a quarter of"
        " its instances, or of its classes without a map of instances, and box is one rectangle",
    )

    @property
    def planes(self) -> int:
        """The number of planes that networks see of the maps."""
        return self.classes + (self.instances is not None)

    @property
    def used(self) -> bool:
        return self.mode != "global"

    @property
    def sent(self) -> bool:
        """Whether the decoder gets the labels."""
        return self.mode in ("conditional", "selective")

    def maps(self) -> tuple[str, ...]:
        """The names of the maps that training reads."""
        if not self.used:
            return ()
        return (self.map,) if self.instances is None else (self.map, self.instances)


class DistortionLabels(LabelsSection):
    """The label maps, and who sees them where there is no discriminator.

    An id that is not below the number of classes counts as the last class.
    """

    mode: Literal["global", "conditional", "selective"] = Field(
        "global",
        description="global uses no labels; conditional sends them, for encoder and decoder;"
        " selective sends them too, and the code of chosen regions only",
    )


class CodeSection(Section):
    """The code: C channels of latents, each quantized to one of L centres."""

    channels: int = Field(8, ge=1, le=1024, description="number C of channels of the latents")
    levels: int = Field(5, ge=2, le=256, description="number L of centres, at first L integers")
    centres: Literal["fixed", "learnt"] = Field(
        "fixed", description="centres: fixed, at distance 1 about 0, or learnt from there"
    )
    centre_penalty: float = Field(
        0.1, ge=0, description="weight of the sum of squares of learnt centres"
    )
    gradient: Literal["soft", "inward"] = Field(
        "soft",
        description="gradient of the quantizer: soft is that of a softmax over the centres, and"
        " inward is 1, but 0 for steps away from the centres",
    )
    distance: Literal["squared", "absolute"] = Field(
        "squared",
        description="distance in the softmax; beyond the outermost centres the absolute one has no"
        " gradient",
    )
    sharpness: float = Field(1.0, gt=0, description="factor of the distance in the softmax")
    salt_bits: int = Field(
        8,
        ge=0,
        le=24,
        description="number of bits of each file's salt, a key of the decoder's noise, if there is"
        " noise: pictures with equal codes are then shown as different images",
    )


class NetworksSection(Section):
    """The sizes and the kind of encoder and decoder."""

    width: int = Field(
        60, ge=1, description="number of channels at full size; the innermost maps have 16 times it"
    )
    residual_blocks: int = Field(9, ge=0, description="number of residual blocks of the decoder")
    norm: Literal["channel", "instance"] = Field(
        "channel",
        description="norm: channel is over the channels of a pixel, so that crops and tiles give"
        " what whole images give, and instance is over the pixels of a channel, as published",
    )
    padding: Literal["symmetric", "tf_same"] = Field(
        "symmetric",
        description="zeros around strided convolutions: symmetric, or TensorFlow's rule SAME",
    )
    last_layer: Literal["linear", "rectified"] = Field(
        "linear",
        description="end of the encoder; rectified adds a norm and a ReLU as in a well-known port,"
        " so that no latent is negative",
    )
    noise_channels: int = Field(
        0, ge=0, description="number of channels of noise that the decoder draws beside the code"
    )
    recompute_blocks: bool = Field(
        False,
        description="compute residual blocks again in the backward pass, which saves their memory",
    )


class DiscriminatorSection(Section):
    """The discriminators, one for each scale."""

    width: int = Field(64, ge=1, description="number of channels after the first convolution")
    scales: int = Field(3, ge=1, le=6, description="number of scales, each of half the size")
    norm: Literal["instance", "channel", "none"] = Field(
        "instance", description="norm of all layers but the first"
    )
    spectral_norm: bool = Field(
        False, description="divide each weight by its spectral norm; takes norm none"
    )
    latent_features: int = Field(
        0, ge=0, description="number of channels made of the latents for it to see; 0 for none"
    )
    updates: int = Field(
        1,
        ge=1,
        description="number of its updates in a step, the first on the codec's batch and each other"
        " one on a fresh batch",
    )
    penalty_weight: float = Field(
        10.0, gt=0, description="weight of the gradient penalty of wgan_gp, for each scale"
    )
    r1_weight: float = Field(
        0.0,
        ge=0,
        description="γ, half of which weighs the squared norm of the gradient at real images",
    )
    r1_every: int = Field(
        16, ge=1, description="number of steps between R1 penalties, which are weighted by it"
    )

    @model_validator(mode="after")
    def _one_norm(self) -> DiscriminatorSection:
        if self.spectral_norm and self.norm != "none":
            raise ValueError(
                f"norm is {self.norm}, but with spectral_norm it must be none, as a norm of the"
                " maps undoes that of the weights"
            )
        return self


class RateSection(Section):
    """The entropy term: estimated bits per pixel under a learnt probability of each symbol."""

    weight: float = Field(
        0.0, ge=0, description="β, weight of the estimated rate in bits per pixel; 0 for no term"
    )
    target: float | None = Field(
        None,
        gt=0,
        description="bits per pixel below which weight_below replaces weight; null for no target",
    )
    weight_below: float = Field(
        0.0, ge=0, description="weight of the estimated rate below the target"
    )

    @property
    def used(self) -> bool:
        return self.weight > 0 or self.weight_below > 0

    @model_validator(mode="after")
    def _a_target_to_be_below(self) -> RateSection:
        if self.weight_below and self.target is None:
            raise ValueError("weight_below needs target, the bits per pixel that it is for")
        return self


class PerceptualSection(Section):
    """The perceptual term, by a TorchScript network from a file.

    A network of distances takes two batches of images on [-1, 1] and gives one number for each
    pair, such as LPIPS. A network of features takes images normalised as those of ImageNet and
    gives a list of maps, such as those of VGG, whose mean absolute differences are summed.
    """

    path: str | None = Field(None, description="TorchScript file of the network; null for none")
    sha256: str | None = Field(None, description="SHA-256 of the file, 64 hexadecimal digits")
    kind: Literal["distances", "features"] = Field(
        "distances", description="what the network gives"
    )
    layer_weights: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        (0.03125, 0.0625, 0.125, 0.25, 1.0),
        description="weight of each map of a network of features; the default is for relu1_1 to"
        " relu5_1 of VGG",
    )

    @model_validator(mode="after")
    def _file_and_hash(self) -> PerceptualSection:
        if (self.path is None) != (self.sha256 is None):
            raise ValueError("path and sha256 go together: sha256sum prints the hash of a file")
        return self


class Weights(NamedTuple):
    """The weights of the terms of the codec's loss, with the units of `LossSection`."""

    distortion: float
    perceptual: float
    adversarial: float = 0.0
    feature_matching: float = 0.0


# The loss of the discriminator and the weights; distortions are MSE on [−1, 1], of which the
# published 0.075·2⁻⁵ on [0, 255] is 0.075·2⁻⁵·127.5².
PRESETS: dict[str, tuple[GanLoss, Weights]] = {
    "paper": ("lsgan", Weights(10.0, 12.0, 1.0, 12.0)),
    "repo": ("lsgan", Weights(12.0, 0.0, 1.0, 10.0)),
    "hific": ("vanilla", Weights(0.075 / 32 * 127.5**2, 1.0, 0.15, 0.0)),
}


class DistortionLoss(Section):
    """The loss of the codec; a weight that is null is that of the preset."""

    preset: Preset = Field(
        "repo",
        description="weights of: paper, the method's paper as second-hand notes give them; repo, a"
        " well-known port of it; hific, High-Fidelity Generative Image Compression",
    )
    distortion_weight: float | None = Field(
        None, ge=0, description="weight of the mean squared error of pixels on [-1, 1]"
    )
    perceptual_weight: float | None = Field(
        None, ge=0, description="weight of the perceptual distance, in the units of its network"
    )
    perceptual: PerceptualSection = PerceptualSection()
    rate: RateSection = RateSection()

    def weights(self) -> Weights:
        """The weights, those of the preset where none is stated."""
        found = PRESETS[self.preset][1]
        names = {name: getattr(self, f"{name}_weight", 0.0) for name in Weights._fields}
        return found._replace(**{name: w for name, w in names.items() if w is not None})

    @model_validator(mode="after")
    def _a_network_for_the_weight(self) -> DistortionLoss:
        weight = self.weights().perceptual
        if weight and self.perceptual.path is None:
            raise ValueError(
                f"the perceptual term has the weight {weight:g}, but perceptual.path names no"
                " network: name a file, or set perceptual_weight to 0"
            )
        return self


class AdversarialLoss(DistortionLoss):
    """The losses of codec and discriminator; what is null is that of the preset."""

    gan: GanLoss | None = Field(None, description="kind of the adversarial loss, over all scales")
    adversarial_weight: float | None = Field(
        None, ge=0, description="weight of the adversarial term, summed over scales"
    )
    feature_matching_weight: float | None = Field(
        None,
        ge=0,
        description="weight of the mean absolute difference of the discriminator's features, summed"
        " over layers",
    )
    feature_matching_scales: Literal["sum", "mean"] = Field(
        "sum", description="how feature matching adds up over scales"
    )

    def kind(self) -> GanLoss:
        return PRESETS[self.preset][0] if self.gan is None else self.gan


class GanOptimizer(OptimizerSection):
    """Adam with a multi-step decay of the learning rate."""

    learning_rate: float = Field(2e-4, gt=0, description="base learning rate")
    betas: tuple[_Decay, _Decay] = Field(
        (0.5, 0.999), description="decay rates of Adam's two moments"
    )


class GanRecipe(BaseRecipe):
    """The parts of a recipe that both stages share."""

    RATE_KEYS: ClassVar[tuple[str, ...]] = ("code.channels", "code.levels")
    FILE_KEYS: ClassVar[tuple[str, ...]] = ("loss.perceptual.path",)
    DATA_KEYS: ClassVar[tuple[str, ...]] = ("labels.class_names",)

    system: Literal["gan_compression"] = "gan_compression"
    labels: LabelsSection = LabelsSection()
    code: CodeSection = CodeSection()
    networks: NetworksSection = NetworksSection()
    loss: DistortionLoss = DistortionLoss()
    optimizer: GanOptimizer = GanOptimizer()
    codec: CodecSection = CodecSection()

    @model_validator(mode="after")
    def _maps_are_read(self) -> GanRecipe:
        missing = [name for name in self.labels.maps() if name not in self.data.maps]
        if missing:
            raise ValueError(
                f"labels.mode is {self.labels.mode}, but data.maps is {list(self.data.maps)}:"
                f" {', '.join(missing)} must be among them"
            )
        return self

    @model_validator(mode="after")
    def _regions_are_kept_in_mode_selective(self) -> GanRecipe:
        if self.labels.mode != "selective":
            for key, value in self.codec.model_dump(exclude_none=True).items():
                raise ValueError(
                    f"codec.{key} is {value}, but labels.mode is {self.labels.mode}: only files of"
                    " mode selective keep some regions"
                )
        return self

    @model_validator(mode="after")
    def _what_is_kept_is_there(self) -> GanRecipe:
        class_ids(self.codec.keep or (), self.labels.classes, self.labels.class_names)
        if self.codec.keep_instances is not None and self.labels.instances is None:
            raise ValueError(
                "codec.keep_instances needs a map of instances, but labels.instances names none"
            )
        return self

    @model_validator(mode="after")
    def _maps_of_their_own(self) -> GanRecipe:
        names = [self.labels.map, self.labels.instances, MASK]
        if len(set(names)) < len(names):
            raise ValueError(
                f"labels.map is {self.labels.map} and labels.instances is {self.labels.instances}:"
                f" they must be two maps, and neither may be called {MASK}"
            )
        return self

    @model_validator(mode="after")
    def _a_name_for_each_class(self) -> GanRecipe:
        names, classes = self.labels.class_names, self.labels.classes
        if len(set(names)) < len(names):
            raise ValueError("labels.class_names names two classes alike")
        if names and not _has_room(classes, names):
            raise ValueError(
                f"labels.class_names has {len(names)} names, but labels.classes is {classes}: each"
                " class has a name, or each but the last"
            )
        return self

    def from_classes(self, names: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        found = names.get(self.labels.map, ()) if self.labels.used else ()
        usable = _has_room(self.labels.classes, found) and len(set(found)) == len(found)
        return {"labels.class_names": list(found)} if usable else {}

    def require_classes(self, names: Mapping[str, Sequence[str]]) -> None:
        settings, found = self.labels, names.get(self.labels.map, ())
        if not settings.used or settings.class_names or not found:
            return
        if not _has_room(settings.classes, found):
            raise InputError(
                f"labels.classes is {settings.classes}, but the map {settings.map} of the shard set"
                f" has {len(found)} classes: set it to {len(found)}, or to {len(found) + 1} with a"
                " last one for all other ids; or state other classes by labels.class_names"
            )

    def shared_with_parent(self) -> dict[str, Any]:
        """What a run that starts from this one must have in common with it, by dotted key."""
        code = self.code.model_dump(include={"channels", "levels", "centres"})
        networks = self.networks.model_dump(exclude={"recompute_blocks"})
        labels = self.labels.model_dump(include={"classes", "map", "instances"})
        return {
            "labels.mode": self.labels.mode if self.labels.sent else "global",
            **{f"labels.{key}": value for key, value in labels.items() if self.labels.sent},
            **{f"code.{key}": value for key, value in code.items()},
            **{f"networks.{key}": value for key, value in networks.items()},
        }


def _has_room(classes: int, names: Sequence[str]) -> bool:
    """Whether names are those of so many classes, the last of which may be for all other ids."""
    return bool(names) and len(names) in (classes, classes - 1)


class DistortionRecipe(GanRecipe):
    """Train encoder and decoder for distortion alone, as a start for the stage adversarial."""

    stage: Literal["distortion"] = "distortion"
    labels: DistortionLabels = DistortionLabels()


class Parents(Section):
    distortion: str | None = Field(
        None,
        description="directory of a finished run of this method, whose encoder and decoder training"
        " starts from; null for a fresh start",
    )


class AdversarialRecipe(GanRecipe):
    """Train encoder and decoder against discriminators."""

    stage: Literal["adversarial"] = "adversarial"
    parents: Parents = Parents()
    loss: AdversarialLoss = AdversarialLoss()
    discriminator: DiscriminatorSection = DiscriminatorSection()
    discriminator_optimizer: GanOptimizer = GanOptimizer()

    def parent_runs(self) -> dict[str, str]:
        path = self.parents.distortion
        return {} if path is None else {"distortion": path}
