"""`gencomp shards simulate`, which tells what reading a set would cost on other machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from gencomp.cli.console import print_table
from gencomp.errors import InputError

if TYPE_CHECKING:
    from shards.checking.simulate import Layout, NodeTraffic, Shuffle
    from shards.reading.order import Order

WINDOW, LANES = 10_000, 8  # the defaults of recipes
_MOST_NODES = 16  # the largest number of nodes that are shown


def simulate(
    location: Annotated[str | None, tyro.conf.arg(metavar="[LOCATION]")] = None,
    /,
    split: str | None = None,
    samples: int | None = None,
    shard_size: int | None = None,
    sample_bytes: int | None = None,
    nodes: int = 1,
    ranks_per_node: int = 1,
    batch_size: int = 64,
    order: Literal["global", "windowed"] = "global",
    window: int | None = None,
    lanes: int | None = None,
    cache_gb: float = 50.0,
    epochs: float = 1.0,
    seed: int = 0,
) -> None:
    """Tell what reading a shard set from remote storage would cost, and how well it is shuffled.

    The real order is asked for every position of the stream. A node keeps whole shards in its
    cache, which evicts the least recently used one first. The set need not exist: without LOCATION,
    --samples, --shard-size and --sample-bytes describe a made-up split.

    Args:
        location: The shard set, a directory or a URI; only its dataset.json is read.
        split: Split of the shard set to read; by default train, or the first split.
        samples: How many samples the made-up split has.
        shard_size: How many samples each tar of the made-up split holds.
        sample_bytes: How many bytes each sample of the made-up split has.
        nodes: How many nodes read, each with a cache of its own.
        ranks_per_node: How many workers each node has.
        batch_size: How many samples a global batch has.
        order: Order of reading: global is a permutation of all samples; windowed takes one shard
            after the other and mixes samples in windows.
        window: How many samples a windowed order mixes with one another; by default 10000.
        lanes: How many pieces of the sequence a windowed order reads side by side; by default 8.
            With a multiple of the number of workers, each worker reads only its own shards.
        cache_gb: Room for shards on each node, in GB of 10^9 bytes.
        epochs: How many epochs of the stream are read.
        seed: Seed of the order.
    """
    from shards.checking.simulate import Readers
    from shards.checking.simulate import simulate as run

    made_up = {"samples": samples, "shard_size": shard_size, "sample_bytes": sample_bytes}
    what, layout, key_hash = _layout(location, split, made_up)
    mixed = _order(order, window, lanes, layout, key_hash, seed)
    readers = Readers(nodes * ranks_per_node, nodes, batch_size, round(cache_gb * 1e9))
    found = run(layout, mixed, readers, round(epochs * mixed.length))
    print(
        f"{what}: {mixed.length} samples in {len(layout.lengths)} shards, "
        f"{layout.sizes.sum() / 1e9:.4g} GB; {found.positions} samples are read by {nodes} x "
        f"{ranks_per_node} workers"
    )
    _print_traffic(found.nodes)
    _print_shuffle(found.shuffle)


def _layout(
    location: str | None, split: str | None, made_up: dict[str, int | None]
) -> tuple[str, Layout, str]:
    """The name, the layout and the key hash of the split to read."""
    from shards.checking.simulate import even_layout, layout_of
    from shards.reading.reader import open_set

    given = {name: value for name, value in made_up.items() if value is not None}
    if location is None:
        if missing := sorted(made_up.keys() - given.keys()):
            raise InputError(
                f"missing --{missing[0].replace('_', '-')}: name a shard set, or give --samples, "
                "--shard-size and --sample-bytes of one that does not exist"
            )
        if split is not None:
            raise InputError("--split names a split of a shard set, and no shard set is named")
        return "a made-up split", even_layout(**given), "made up"
    if given:
        raise InputError(
            f"--{next(iter(given)).replace('_', '-')} and a shard set exclude each other"
        )
    shard_set = open_set(location)
    name = split or ("train" if "train" in shard_set.splits else next(iter(shard_set.splits)))
    if name not in shard_set.splits:
        raise InputError(f"{location} has no split {name!r}: it has {', '.join(shard_set.splits)}")
    layout = layout_of(shard_set.info.splits[name])
    return f"{location}, split {name}", layout, f"{shard_set.index_hash}/{name}"


def _order(
    kind: str, window: int | None, lanes: int | None, layout: Layout, key_hash: str, seed: int
) -> Order:
    from shards.reading.order import EpochOrder
    from shards.reading.windowed import WindowedOrder

    if kind == "windowed":
        return WindowedOrder(
            key_hash,
            seed,
            layout.lengths,
            WINDOW if window is None else window,
            LANES if lanes is None else lanes,
        )
    if window is not None or lanes is not None:
        raise InputError("--window and --lanes are of --order windowed")
    return EpochOrder(key_hash, seed, int(layout.lengths.sum()))


def _print_traffic(nodes: Sequence[NodeTraffic]) -> None:
    rows = [
        [
            str(number),
            str(node.requests),
            f"{node.bytes / 1e9:.4g}",
            str(node.repeated),
            f"{node.needed_bytes / 1e9:.4g}",
            f"{node.share:.1%}",
        ]
        for number, node in enumerate(nodes[:_MOST_NODES])
    ]
    columns = [
        "node",
        "shards fetched",
        "GB",
        "fetched again",
        "cache needed, GB",
        "of the set an epoch",
    ]
    print_table("traffic", columns, rows)
    if len(nodes) > _MOST_NODES:
        print(f"  and {len(nodes) - _MOST_NODES} more nodes")
    total = sum(node.bytes for node in nodes)
    print(f"  all nodes: {sum(node.requests for node in nodes)} shards, {total / 1e9:.4g} GB")


def _print_shuffle(shuffle: Shuffle) -> None:
    rows = [
        ["different shards in a batch", f"{shuffle.distinct_shards:.3f}", "1"],
        ["rank correlation with storage", f"{shuffle.rank_correlation:+.4f}", "0"],
        ["pairs that meet again", f"{shuffle.pair_repeat:.3f}", "1"],
    ]
    print_table("shuffle", ["measure", "here", "uniform"], rows)
