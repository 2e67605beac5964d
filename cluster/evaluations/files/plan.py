"""The plan of measuring files: the codec, the pictures, and how they are cut into blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal, NamedTuple

import gencomp
from cluster import data
from cluster.evaluations import evaluation, plans
from cluster.evaluations.files.settings import FileOptions, Lossless, Settings
from cluster.evaluations.plans import spaced
from cluster.runs import Run
from gencomp import recipes
from gencomp.coding import classical
from gencomp.errors import InputError
from gencomp.evaluation import intervals
from gencomp.recipes.schema import BaseRecipe
from gencomp.system import Codec, Ideal, Picture
from gencomp.validation import checked
from shards.reading.reader import Split

# The name of each engineered codec as `gencomp.coding.classical` has it.
LOSSLESS: dict[Lossless, str] = {
    "png": "PNG",
    "webp": "WebP",
    "jpeg2000": "JPEG 2000",
    "jpegxl": "JPEG XL",
}


class Block(NamedTuple):
    """A unit of work.

    Attributes:
        kind: whether each picture becomes a file of its own, or all of them one joint container.
        items: the places of the pictures among the measured ones.
    """

    kind: Literal["single", "joint"]
    items: range


class Plan(plans.Plan):
    """The plan of a measurement of files."""

    FILE: ClassVar[str] = "files.json"
    LOCATIONS: ClassVar[tuple[str, ...]] = ("shards",)
    COMMAND: ClassVar[str] = "gencomp files"

    BEFORE: ClassVar[dict[str, Any]] = {
        **plans.Plan.BEFORE,
        "ideal": False,
        "lossless": [],
        "parts": [],
    }

    format: Literal[2] = 2
    gencomp: str
    weights: str
    codec: str
    writer: str
    reader: str
    data: str
    stored: dict[str, Any]
    transforms: dict[str, Any]
    split_images: int
    nominal: bool
    # Whether the method says what its files would be without any loss of coding.
    ideal: bool = False
    # The parts of a picture's file, where there are several.
    parts: tuple[str, ...] = ()
    rules: dict[str, str]
    shards: str
    settings: Settings

    @property
    def rows(self) -> tuple[int, ...]:
        """The measured rows of the split."""
        return spaced(self.split_images, self.settings.images, self.settings.split)

    @property
    def blocks(self) -> list[Block]:
        """All units of work, single files first."""
        count, size = self.settings.images, self.settings.block
        single = [range(a, min(a + size, count)) for a in range(0, count, size)]
        return [
            *(Block("single", part) for part in single),
            *(Block("joint", part) for part in _equal_parts(count, self.settings.joint)),
        ]


@dataclass(frozen=True)
class Evaluation(evaluation.Evaluation):
    """The directory of a measurement of files with its plan."""

    PLAN: ClassVar[type[plans.Plan]] = Plan
    RESULT: ClassVar[str] = "rates.json"

    plan: Plan


def make(run: Run, chosen: FileOptions, threads: int) -> Plan:
    """The plan for a finished run. Nothing is written.

    Args:
        run: the finished run.
        chosen: the options that the user has chosen.
        threads: the number of threads of each process.

    Raises:
        InputError: the run is not finished or has no codec, or a value is out of range.
        ShardError: the shard set or the split is missing.
    """
    codec, ideal = open_codec(run)
    recipe = run.recipe()
    shard_set = data.open_evaluation_set(run)
    split = shard_set.split(chosen.split)
    count = len(split) if chosen.images is None else chosen.images
    settings = checked(Settings, {**dict(chosen), "images": count, "threads": threads})
    rows = spaced(len(split), count, split.name)
    _require_a_file(codec, recipe, split, rows[0])
    for name in settings.lossless:
        classical.lossless(LOSSLESS[name])  # which refuses one that is not installed
    return Plan(
        checkpoint=run.checkpoint,
        gencomp=gencomp.__version__,
        weights=run.final_checkpoint().networks_hash(),
        codec=codec.codec_id,
        writer=codec.writer_fingerprint.hex(),
        reader=codec.reader_fingerprint.hex(),
        data=split.index_hash,
        stored=data.stored(shard_set.info),
        transforms=data.evaluation_protocol(recipe),
        split_images=len(split),
        written=recipes.writing(recipe),
        nominal=codec.nominal_bits(64, 64) is not None,
        ideal=ideal is not None,
        parts=several(codec.parts),
        rules=rules(ideal is not None, bool(settings.lossless), several(codec.parts)),
        shards=plans.absolute(str(shard_set.path)),
        settings=settings,
    )


def _require_a_file(codec: Codec, recipe: BaseRecipe, split: Split, row: int) -> None:
    """Raise `InputError` if a codec that needs more than an image does not get it.

    So the reason is said before anything is written.
    """
    if several(codec.parts):
        codec.compress(data.held_out_picture(recipe, split, row))


def _equal_parts(count: int, size: int) -> list[range]:
    """Consecutive parts of `size` items or fewer, as equal in length as possible."""
    parts = -(-count // size)
    cuts = [count * part // parts for part in range(parts + 1)]
    return [range(a, b) for a, b in pairwise(cuts)]


def open_codec(run: Run) -> tuple[Codec, Callable[[Picture], Ideal] | None]:
    """The codec of a finished run, and what its files would be without any loss of coding.

    Raises:
        InputError: the run is not finished or has no codec.
    """
    run.final_checkpoint()
    system = run.system()
    codec = system.codec()
    if codec is None:
        recipe = run.recipe()
        raise InputError(
            f"run {run.path} ({recipe.system}/{recipe.stage}) has no codec, so it writes no files"
        )
    return codec, system.ideal()


def several(parts: tuple[str, ...]) -> tuple[str, ...]:
    """The parts of files that have more than one."""
    return parts if len(parts) > 1 else ()


def rules(ideal: bool, lossless: bool, parts: tuple[str, ...]) -> dict[str, str]:
    """The meaning of the numbers, in words.

    Args:
        ideal: whether there are numbers of files without any loss of coding.
        lossless: whether engineered lossless codecs are measured beside.
        parts: the parts of files that have several.
    """
    of_parts = {
        "parts": f"{', '.join(f'{part}_bpp' for part in parts)}: bits of one part of the code, over"
        " the picture's pixels; mean over pictures"
    }
    engineered = {
        "lossless": "png_bpd and others: all bits of the files of engineered lossless codecs, over"
        " the 3 colour values of each pixel; joint_png_bpd and others: one archive of the files"
    }
    more = {
        "ideal": "ideal_bpp and ideal errors are those of a sample of the posterior, at the"
        " divergence from the prior and, where nothing is lost, the bits of the residual",
        "bpd": "bpp over the 3 colour values of a pixel, where all pictures come back exactly",
    }
    return {
        "pictures": "evenly spaced over the split, of any size; each is a file of its own, and a"
        " member of a joint container",
        "bpp": "bits that the file spends on code, over the picture's pixels; mean over pictures",
        "file_bpp": "all bits of the file, over the picture's pixels; mean over pictures",
        "bytes_alone": "bytes of the file; mean over pictures",
        "joint_bpp": "bits that joint containers spend on code, over all pixels",
        "joint_file_bpp": "all bits of joint containers, over all pixels; some of their pictures"
        " are read back and compared",
        "nominal_bpp": "the method's fixed length, which no file need have",
        "mse": "decoded pixels against the picture, 8 bits, on the scale [-1, 1]",
        "psnr": "10 log10(4 / MSE) of the mean MSE",
        "ms_ssim": "Wang et al. 2003, on as many scales as the picture has; none below 11 pixels",
        "seconds": "one picture at a time with the networks loaded; median over pictures",
        "interval": intervals.RULE,
        **(of_parts if parts else {}),
        **(more if ideal else {}),
        **(engineered if lossless else {}),
    }
