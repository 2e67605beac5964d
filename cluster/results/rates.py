"""Images of codecs that share a generator, as columns of a sheet, one column for each rate."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from cluster.results import pictures
from cluster.results.pictures import Images
from cluster.runs import Run
from gencomp.errors import InputError
from gencomp.figures.tiles import Column
from gencomp.system import System


def choose(runs: Sequence[Run], split: str, count: int | None, rows: Sequence[int] = ()) -> Images:
    """The images that are shown.

    Args:
        runs: The runs of the codecs.
        split: The name of a split.
        count: The number of images, evenly spaced over the split.
        rows: The numbers of the images in the split, to be shown instead.

    Raises:
        InputError: The runs have different generators or different data, or the split has fewer
            images.
        ShardError: The shard set or the split is missing.
    """
    pictures.require_one_generator(runs)
    chosen = pictures.choose_images(runs, split, 1 if rows else count)
    return pictures.choose_rows(chosen, rows) if rows else chosen


def along_the_rate(runs: Sequence[Run], chosen: Images, draws: int, seed: int) -> list[Column]:
    """The columns of the originals, of samples of the prior (0 bpp) and of every rate.

    A rate is that of the code in one container of the images. The remark of its column has the bits
    of code and the bytes of the whole container, both for an image.

    Args:
        runs: The runs of codecs on one generator.
        chosen: The images, from the shard set on which the runs are evaluated.
        draws: The number of reconstructions of each image at each rate.
        seed: The seed of the noise.

    Raises:
        InputError: A run has no codec.
    """
    originals = [
        tile
        for batch in chosen.batches(runs[0].recipe())
        for tile in pictures.as_tiles(batch.images_BCHW)
    ]
    height, width = originals[0].shape[:2]
    labels = pictures.differing(runs, rates=False)
    coded: list[tuple[float, float, str, Run, System]] = []
    for run, label in zip(runs, labels, strict=True):
        system = run.system()
        if (codec := system.codec()) is None:
            raise InputError(f"{pictures.stage(run)} has no codec, so it has no rate")
        stream = codec.compress_jointly(list(chosen.pictures(run.recipe())))
        count = len(originals)
        coded.append((codec.code_bits(stream) / count, len(stream) / count, label, run, system))
    coded.sort(key=lambda one: one[0])

    def column(heading: str, remark: str, made: list[Tensor]) -> Column:
        tiles = [pictures.as_tiles(one) for one in made]
        return Column(heading, remark, [list(row) for row in zip(*tiles, strict=True)])

    columns = [Column("original", "", [[tile] * draws for tile in originals])]
    *_, run, system = coded[0]
    samples = pictures.prior_samples(run, system, chosen, seed, draws)
    columns.append(column("0 bpp", "prior", samples))
    for bits, whole, label, run, system in coded:
        remark = f"{bits:.4g} bits in {whole:.3g} bytes" + f", {label}" * (len(set(labels)) > 1)
        made = pictures.reconstructions(run, system, chosen, seed, draws)
        columns.append(column(f"{bits / (height * width):.3g} bpp", remark, made))
    return columns
