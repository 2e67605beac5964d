"""Opening a set of LSUN's size: seconds to the first batch, and memory of a node's processes.

Makes a set of 3 million rows: keys of 40 hex digits, 3,000 shards of 1,000 images of 64x64 JPEG,
all of them hard links to one real tar. Opens it in fresh processes and reads a batch: cold (nothing
made yet, nothing in the page cache), warm (another process of the node opened it before), and warm
at a random step of the eighth epoch, as a resumed run does.

    python benchmarks/index.py [--rows 3000000] [--processes 4] [--repeats 5]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from shards.reading.reader import ShardSet

SHARD_ROWS = 1000
BATCH = 256


def make_tar(directory: Path) -> ShardSet:
    """A set of one shard of smooth random images."""
    from shards.building.build import build

    rng = np.random.default_rng(0)
    (directory / "images").mkdir(parents=True)
    for i in range(SHARD_ROWS):
        small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        image = small.resize((64, 64), Image.Resampling.BICUBIC)
        image.save(directory / "images" / f"{i:06d}.jpg", quality=90)
    options = {"test_fraction": 0.0}
    return build(
        "folder", directory / "one", path=directory / "images", options=options, shard_size=1000
    )


def make_set(directory: Path, rows: int) -> None:
    """A set of `rows` images whose shards are links to one tar of 1,000."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from shards.index import FILE_NAME, SCHEMA, IndexWriter
    from shards.info import SplitInfo, write_info

    one = make_tar(directory.with_name("template"))
    assert isinstance(one.path, Path)
    (tar,) = one.info.splits["train"].shards
    table = pq.read_table(one.path / FILE_NAME).cast(SCHEMA)
    rng = np.random.default_rng(0)
    directory.mkdir(parents=True)
    writer = IndexWriter(directory / FILE_NAME)
    shards = []
    for number in range(rows // SHARD_ROWS):
        name = f"train-{number:06d}.tar"
        os.link(one.path / tar.name, directory / name)
        keys = rng.bytes(20 * SHARD_ROWS).hex()
        columns = {field: table[field] for field in SCHEMA.names}
        columns |= {
            "shard": [name] * SHARD_ROWS,
            "key": [keys[i : i + 40] for i in range(0, 40 * SHARD_ROWS, 40)],
        }
        writer.add(pa.table(columns, schema=SCHEMA), str(number).encode())
        shards.append(tar.model_copy(update={"name": name}))
    index_hash, bytes_hash = writer.close()
    update = {
        "name": "synthetic",
        "splits": {"train": SplitInfo(samples=SHARD_ROWS * len(shards), shards=shards)},
        "index_hash": index_hash,
        "index_bytes_hash": bytes_hash,
    }
    write_info(one.info.model_copy(update=update), directory)


def memory(pid: int) -> dict[str, float]:
    """Megabytes of a process: of its own; of the mapped columns, and its share in those."""
    found = {"own": 0.0, "columns": 0.0, "share": 0.0}
    mapped = False
    for line in Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8").splitlines():
        name, *values = line.split()
        if not name.endswith(":"):  # the first line of a mapping ends with its file
            mapped = line.endswith(".columns")
        elif mapped and name in ("Rss:", "Pss:"):
            found["columns" if name == "Rss:" else "share"] += int(values[0]) / 1024
        elif not mapped and name in ("Private_Clean:", "Private_Dirty:"):
            found["own"] += int(values[0]) / 1024
    return found


def child(directory: Path, epoch: float) -> None:
    """Open the set, read a batch, then wait for the word to end."""
    begin = time.perf_counter()
    import shards
    from shards.reading import reader
    from shards.reading.order import EpochOrder
    from shards.reading.stream import training_batches

    assert reader
    imported, cpu, before = time.perf_counter(), time.process_time(), memory(os.getpid())
    split = shards.open_set(directory).split("train")
    opened = time.perf_counter()
    order = EpochOrder(split.key_hash, 0, len(split))
    position = int(epoch * len(split)) // BATCH * BATCH
    with closing(training_batches(split, order, BATCH, 0, 1, position)) as stream:
        batch = next(stream)
    done, cpu = time.perf_counter(), time.process_time() - cpu
    for column in vars(split._columns).values():
        if isinstance(column, np.ndarray):
            column.max()
    found = {
        "import": imported - begin, "open": opened - imported, "first batch": done - opened,
        "open and first batch": done - imported, "of these on the CPU": cpu, "before": before,
        "images": len(batch.images),
    }  # fmt: skip
    print(json.dumps(found), flush=True)
    sys.stdin.readline()


def start(directory: Path, cache: Path, epoch: float = 0.0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, "--child", str(directory), "--epoch", str(epoch)],
        env={**os.environ, "GENCOMP_CACHE": str(cache)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def answer(process: subprocess.Popen[str]) -> dict:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"the opening process failed with code {process.wait()}")
    return json.loads(line)


def end(process: subprocess.Popen[str]) -> None:
    process.communicate("\n")


def forget(directory: Path) -> None:
    """Take the files below a directory out of the page cache."""
    for path in directory.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--epoch", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        child(arguments.child, arguments.epoch)
        return
    with tempfile.TemporaryDirectory() as root:
        report(Path(root), arguments.rows, arguments.processes, arguments.repeats)


def report(root: Path, rows: int, processes: int, repeats: int) -> None:
    directory, cache = root / "set", root / "cache"
    begin = time.perf_counter()
    make_set(directory, rows)
    size = (directory / "index.parquet").stat().st_size / 2**20
    print(
        f"{rows} rows: index.parquet of {size:.0f} MB made in {time.perf_counter() - begin:.1f} s"
    )
    kinds = {"cold": 0.0, "warm": 0.0, "warm, epoch 7": 7.0}
    times: dict[str, list[dict]] = {kind: [] for kind in kinds}
    for repeat in range(repeats):
        shutil.rmtree(cache, ignore_errors=True)
        forget(directory)
        for kind, epoch in kinds.items():
            process = start(directory, cache, epoch + (repeat + 0.5) / repeats * (epoch > 0))
            times[kind].append(answer(process))
            end(process)
    print(f"\nseconds, median (min to max) of {repeats}")
    print(f"{'':<22}" + "".join(f"{kind:>24}" for kind in kinds))
    for step in ("import", "open", "first batch", "open and first batch", "of these on the CPU"):
        cells = [spread([found[step] for found in times[kind]]) for kind in kinds]
        print(f"{step:<22}" + "".join(f"{cell:>24}" for cell in cells))
    files = list(cache.rglob("*.columns"))
    print(f"\nfile of columns: {sum(p.stat().st_size for p in files) / 2**20:.0f} MB")
    print("memory in MB when every page was touched: own is private, the columns are shared")
    print(f"{'':<28}{'own before':>12}{'own after':>12}{'columns':>10}{'all together':>14}")
    shutil.rmtree(cache)
    show_memory("1, which made the columns", directory, cache, 1)
    show_memory("1", directory, cache, 1)
    show_memory(f"{processes} at once", directory, cache, processes)


def show_memory(name: str, directory: Path, cache: Path, count: int) -> None:
    running = [start(directory, cache) for _ in range(count)]
    found = [answer(process)["before"]["own"] for process in running]
    now = [memory(process.pid) for process in running]
    for process in running:
        end(process)
    together = sum(m["own"] + m["share"] for m in now)
    print(
        f"{name:<28}{max(found):>12.0f}{max(m['own'] for m in now):>12.0f}"
        f"{max(m['columns'] for m in now):>10.0f}{together:>14.0f}"
    )


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
