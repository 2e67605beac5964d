"""`gencomp shards split`, which draws another test split of a shard set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from gencomp.cli.console import progress
from gencomp.cli.shards.showing import Location, print_set


def split(
    location: Location,
    /,
    out: Path,
    test_images: int | None = None,
    test_fraction: float | None = None,
    seed: int = 0,
    from_: Annotated[str | None, tyro.conf.arg(name="from")] = None,
    name: str = "test",
    keep: bool = False,
    shard_size: int = 1000,
    processes: int | None = None,
) -> None:
    """Divide the samples of a shard set anew into train and test; members are copied as they are.

    Images that occur more than once in the set are never drawn for the test split. With --from
    train --name validation --keep, a validation split is taken out of the training samples and the
    test split stays as it is.

    Args:
        location: The shard set, a directory or a URI.
        out: Directory of the new set. Nothing is ever overwritten.
        test_images: How many samples the test split has; give either this or --test-fraction.
        test_fraction: Fraction of the samples that goes into the test split.
        seed: Seed of the draw.
        from_: The split to divide, while the others are left out; by default the samples of all
            splits are divided.
        name: Name of the split of the drawn samples.
        keep: Keep the splits other than that of --from as they are.
        shard_size: How many samples a tar holds.
        processes: How many processes work at once; by default as many as pay off on this machine.
    """
    from shards.building.subset import split_set

    with progress("copying", "samples") as show:
        made = split_set(
            location,
            out,
            test_images=test_images,
            test_fraction=test_fraction,
            seed=seed,
            from_split=from_,
            name=name,
            keep=keep,
            shard_size=shard_size,
            processes=processes,
            progress=show,
        )
    print_set(made.path, made.info)
