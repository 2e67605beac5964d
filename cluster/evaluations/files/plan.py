"""The plan of measuring files: the codec, the pictures, and how they are cut into blocks."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal, NamedTuple

import gencomp
import shards
from cluster import data
from cluster.evaluations import evaluation, plans
from cluster.evaluations.files.settings import FileOptions, Settings
from cluster.evaluations.plans import spaced
from cluster.runs import Run
from gencomp.errors import InputError
from gencomp.evaluation import intervals
from gencomp.system import Codec
from gencomp.validation import checked


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
    codec = open_codec(run)
    recipe = run.recipe()
    location = recipe.evaluation_shards()
    shard_set = shards.open_set(location)
    split = shard_set.split(chosen.split)
    count = len(split) if chosen.images is None else chosen.images
    settings = checked(Settings, {**dict(chosen), "images": count, "threads": threads})
    spaced(len(split), count, split.name)
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
        nominal=codec.nominal_bits(64, 64) is not None,
        rules=rules(),
        shards=plans.absolute(location),
        settings=settings,
    )


def _equal_parts(count: int, size: int) -> list[range]:
    """Consecutive parts of `size` items or fewer, as equal in length as possible."""
    parts = -(-count // size)
    cuts = [count * part // parts for part in range(parts + 1)]
    return [range(a, b) for a, b in pairwise(cuts)]


def open_codec(run: Run) -> Codec:
    """The codec of a finished run.

    Raises:
        InputError: the run is not finished or has no codec.
    """
    run.final_checkpoint()
    codec = run.system().codec()
    if codec is None:
        recipe = run.recipe()
        raise InputError(
            f"run {run.path} ({recipe.system}/{recipe.stage}) has no codec, so it writes no files"
        )
    return codec


def rules() -> dict[str, str]:
    """The meaning of the numbers, in words."""
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
    }
