"""The tables of docs/scaling.md, from the model in `scaling_model.py`. Nothing is measured here.

python benchmarks/scaling.py
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

from benchmarks.scaling_model import Machine, cases, images, outlook, restart, ring, step, traffic


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def sizes() -> str:
    """Parameters, checkpoints, and seconds to write them."""
    machine = Machine()
    head = ["", "parameters", "checkpoint, MB", "written in, s", "the loop waits, s",
            "read by 64 nodes, s"]  # fmt: skip
    return table(
        head,
        [
            [
                one.name,
                f"{sum(n.parameters for n in one.networks.values()):,}",
                f"{one.checkpoint / 1e6:,.0f}",
                f"{one.checkpoint / machine.write:.2f}",
                f"{one.checkpoint / machine.copy:.3f}",
                f"{restart(one, machine) - machine.start:.2f}",
            ]
            for one in cases()
        ],
    )


def exchanged() -> str:
    """What ranks exchange, by update, with 512 of them (256 where the batch is no larger)."""
    rows = []
    for one in cases():
        world = min(Machine().world, one.batch)
        for update in one.updates:
            sent = traffic(one, update, world)
            rows.append(
                [
                    one.name,
                    f"{update.phase} × {update.repeats}",
                    f"{sent.gradients / 1e6:,.1f}",
                    f"{world * sent.gathered / 1e6:,.1f}",
                    f"{sent.reduced / 1e3:,.0f}",
                    f"{sent.gathers + sent.reduces + sent.buckets}",
                    f"{1e3 * ring(sent.gradients, world, Machine().bus):,.2f}",
                    f"{1e3 * ring(sent.gradients, world, Machine().slow_bus):,.1f}",
                ]
            )
    head = ["", "update", "gradients, MB", "gathered, MB", "summed besides, kB", "collectives",
            "ring at 200 GB/s, ms", "at 10 GB/s, ms"]  # fmt: skip
    return table(head, rows)


def steps() -> str:
    """Seconds of a step by number of GPUs."""
    rows = []
    for one in cases():
        alone = step(one, Machine(nodes=1, gpus=1)).all
        for nodes, gpus in ((1, 1), (1, 8), (8, 8), (32, 8), (64, 8)):
            machine = Machine(nodes=nodes, gpus=gpus)
            if machine.world > one.batch:
                rows.append([one.name, f"{machine.world}", "refused", *[""] * 6])
                continue
            took = step(one, machine)
            rows.append(
                [
                    one.name,
                    f"{machine.world}",
                    f"{math.ceil(one.batch / machine.world)}",
                    *(f"{1e3 * part:,.1f}" for part in took),
                    f"{images(one) / took.all:,.0f}",
                    f"{100 * alone / took.all / machine.world:.0f} %",
                ]
            )
    head = ["", "GPUs", "images a GPU", "compute, ms", "gradients, ms", "moments and rows, ms",
            "hops, ms", "images/s", "efficiency"]  # fmt: skip
    return table(head, rows)


def reading(bytes_an_image: float = 7_250.0, shards: int = 3_000, open_files: int = 256) -> str:
    """What the shards must give: 3 million images in shards of 1,000, globally shuffled.

    A process keeps `open_files` shards open; an image of another one costs an `open`.
    """
    rows = []
    for one in cases():
        nodes = min(64, one.batch // 8)
        machine = Machine(nodes=nodes)
        rate = images(one) / step(one, machine).all
        opened = rate * (1 - open_files / shards)
        rows.append(
            [
                one.name,
                f"{machine.world}",
                f"{rate:,.0f}",
                f"{rate / machine.world:,.0f}",
                f"{rate * bytes_an_image / 1e9:.2f}",
                f"{rate / nodes / machine.png:.2f}",
                f"{opened:,.0f}",
            ]
        )
    head = ["", "GPUs", "images/s", "a GPU", "GB/s", "cores a node that decode", "files opened/s"]
    return table(head, rows)


def failing() -> str:
    """Failures, the best interval between checkpoints and the goodput, for two kinds of nodes."""
    rows = []
    for one in cases():
        nodes = min(64, one.batch // 8)
        machine = Machine(nodes=nodes)
        took = step(one, machine).all
        for days in (264, 70):
            seen = outlook(one, machine, days)
            rows.append(
                [
                    one.name,
                    f"{nodes}",
                    f"{days}",
                    f"{seen.failures:.2f}",
                    f"{seen.interval:,.0f}",
                    f"{seen.interval / took:,.0f}",
                    f"{one.every}",
                    f"{100 * seen.goodput:.2f} %",
                ]
            )
    head = ["", "nodes", "days a node lives", "failures a day", "best interval, s", "steps",
            "recipe's checkpoint_every", "goodput"]  # fmt: skip
    return table(head, rows)


def control() -> str:
    """What grows with the number of workers, whatever they train."""
    rows = []
    for nodes, gpus in ((1, 2), (4, 8), (64, 8)):
        machine = Machine(nodes=nodes, gpus=gpus)
        world = machine.world
        rows.append(
            [
                f"{world}",
                f"{1e3 * math.ceil(math.log2(world)) * machine.hop:.1f}",
                f"{world * machine.polls:,.0f}",
                f"{machine.controller + world * machine.polls * machine.poll:.2f}",
                f"{world * machine.modules:,}",
                f"{world * machine.modules / machine.opens:.1f}",
                f"{world}",
                f"{0.6 * world:,.0f}",
            ]
        )
    head = ["workers", "asking to stop, ms a step", "polls/s", "CPU of the controller, s/s",
            "files that imports open", "s for that", "log files", "kB an attempt"]  # fmt: skip
    return table(head, rows)


TABLES = {
    "Sizes": sizes,
    "Exchanged in an update": exchanged,
    "A step": steps,
    "Reading": reading,
    "Failures": failing,
    "Control": control,
}


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    for title, made in TABLES.items():
        print(f"{title}\n\n{made()}\n")


if __name__ == "__main__":
    main()
