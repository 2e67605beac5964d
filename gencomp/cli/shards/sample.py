"""`gencomp shards sample`, which cuts a small shard set out of a large one."""

from __future__ import annotations

from pathlib import Path

from gencomp.cli.console import progress
from gencomp.cli.shards.showing import Location, print_set


def sample(
    location: Location,
    /,
    out: Path,
    count: int,
    split: str | None = None,
    seed: int = 0,
    shard_size: int = 1000,
    processes: int | None = None,
) -> None:
    """Cut a small shard set out of a large one; members are copied as they are.

    Args:
        location: The shard set, a directory or a URI.
        out: Directory of the new set. Nothing is ever overwritten.
        count: How many samples are taken from each split; a split that has fewer is taken whole.
        split: The only split to take samples from; by default samples of all splits are taken.
        seed: Seed of the draw.
        shard_size: How many samples a tar holds.
        processes: How many processes work at once; by default as many as pay off on this machine.
    """
    from shards.building.subset import sample_set

    with progress("copying", "samples") as show:
        made = sample_set(
            location,
            out,
            count=count,
            split=split,
            seed=seed,
            shard_size=shard_size,
            processes=processes,
            progress=show,
        )
    print_set(made.path, made.info)
