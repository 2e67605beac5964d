"""`gencomp figure overhead`, which draws what relative entropy coding costs and gives."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from gencomp.cli.arguments import Checkpoint
from gencomp.cli.console import print_table, progress
from gencomp.cli.figure.drawing import FigureFile
from gencomp.errors import InputError

if TYPE_CHECKING:
    from gencomp.coding.relative_entropy.overhead import Overhead


def overhead(
    file: Annotated[FigureFile, tyro.conf.OmitArgPrefixes],
    omegas: tuple[float, ...] = (3.0, 5.0, 7.5),
    oversamplings: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2),
    beams: tuple[int, ...] = (5, 20),
    blocks: int = 20,
    keys: int = 2,
    run: Path | None = None,
    images: int = 4,
    split: str = "test",
    checkpoint: Checkpoint = "last",
) -> None:
    """Draw rate, faithfulness and time of relative entropy coding for a grid of settings.

    The blocks are those of three kinds of targets: 32 latents with 60 nats, 1,000 latents with 350
    nats, and targets like those of a trained model. A faithful value has the log ratio and the
    residuals of a sample of its target, which dashed lines show. The command also prints a table.

    Args:
        file: The file that the figure is written to.
        omegas: The nats of a piece, each above 0.
        oversamplings: By how much the indices take more than the nats of a piece.
        beams: How many sums the search keeps.
        blocks: How many blocks of each kind are coded at once.
        keys: How often they are coded, each time with other candidates.
        run: A finished run whose own blocks are a further kind.
        images: How many of its held-out pictures the blocks are taken from.
        split: The split of these pictures.
    """
    from gencomp.coding.relative_entropy import Settings
    from gencomp.coding.relative_entropy.overhead import T32, T1000, like_a_model, measure
    from gencomp.figures.overhead import draw

    file.check()
    if blocks < 1 or keys < 1:
        raise InputError("--blocks and --keys must be at least 1")
    grid = [Settings(*one) for one in itertools.product(omegas, oversamplings, beams)]
    if not grid:
        raise InputError("--omegas, --oversamplings and --beams take at least one number each")
    for settings in grid:
        settings.check()
    kinds = {
        "D 32, 60 nats": [T32] * blocks,
        "D 1,000, 350 nats": [T1000] * max(1, blocks // 5),
        "like a model's": like_a_model(blocks),
    }
    if run is not None:
        from cluster.results import coded_blocks

        kinds[run.name] = coded_blocks.of_run(run, checkpoint, split, images, blocks)
    measured: dict[str, list[Overhead]] = {}
    with progress("coding", "settings") as show:
        for number, (name, targets) in enumerate(kinds.items()):
            measured[name] = []
            for place, settings in enumerate(grid):
                measured[name].append(measure(targets, settings, keys))
                show(name, number * len(grid) + place + 1, len(kinds) * len(grid))
    for name, found in measured.items():
        _print(name, found)
    remarks = [
        "Targets N(m, s²) of standardised latents; KL: their relative entropy to the prior;"
        f" blocks: {blocks}, and a fifth of them of 1,000 latents; keys: {keys}",
        "Dashed: a sample of the target. Lines join settings with other oversampling ε",
    ]
    file.write(draw(measured, "What relative entropy coding costs and gives", remarks))


def _print(kind: str, measured: Sequence[Overhead]) -> None:
    """Print the table of a kind of blocks, a row for each of its settings."""
    rows = [
        [
            f"{one.settings.omega:g}",
            f"{one.settings.oversampling:g}",
            str(one.settings.beams),
            f"{one.index_rate:.3f}",
            f"{one.file_rate:.3f}",
            f"{one.reached:.3f}",
            f"{one.variance:.3f}",
            f"{one.projection:+.2f}",
            f"{one.encode_ms:.2f}",
            f"{one.decode_ms:.2f}",
        ]
        for one in measured
    ]
    columns = ["Ω", "ε", "B", "indices/KL", "file/KL", "ln q/p / KL", "variance", "along m"]
    print_table(kind, [*columns, "encode ms", "decode ms"], rows)
