"""Opening a set of LSUN's size: seconds, and memory of one and of several processes of a node.

Makes a synthetic index (keys of 40 hex digits, shards of 1,000 images; no tars: opening a set
and computing addresses reads none), then opens it in fresh processes: cold (nothing made yet, the
index not even in the page cache) and warm (another process of the node opened it before).

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
from pathlib import Path

import numpy as np

SHARD_ROWS = 1000
BATCH = 256


def make_set(directory: Path, rows: int) -> None:
    """A set of `rows` images of some kilobytes, alone in their samples, as LSUN's are."""
    import pyarrow as pa

    from shards.index import FILE_NAME, SCHEMA, IndexWriter
    from shards.info import DatasetInfo, ShardInfo, SplitInfo, Transform, write_info

    rng = np.random.default_rng(0)
    directory.mkdir(parents=True)
    writer = IndexWriter(directory / FILE_NAME)
    shards = []
    for number in range(-(-rows // SHARD_ROWS)):
        count = min(SHARD_ROWS, rows - number * SHARD_ROWS)
        name = f"train-{number:06d}.tar"
        size = rng.integers(2000, 8000, count)
        blocks = 512 * (1 - (-size // 512))
        offset = np.concatenate([[0], np.cumsum(blocks)[:-1]]) + 512
        keys = rng.bytes(20 * count).hex()
        key = [keys[i : i + 40] for i in range(0, 40 * count, 40)]
        member = pa.StructArray.from_arrays(
            [pa.array(["jpg"] * count), pa.array(offset), pa.array(size)],
            names=["name", "offset", "size"],
        )
        columns = {
            "split": ["train"] * count, "shard": [name] * count, "key": key,
            "image_ext": ["jpg"] * count, "offset": offset, "span": size,
            "check": rng.integers(0, 1 << 64, count, dtype=np.uint64),
            "image_offset": offset, "image_size": size, "width": [64] * count,
            "height": [64] * count, "label": [None] * count, "source": key,
            "hash": pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(16), count, [None, pa.py_buffer(rng.bytes(16 * count))]
            ),
            "members": pa.ListArray.from_arrays(np.arange(count + 1, dtype=np.int32), member),
        }  # fmt: skip
        writer.add(pa.table(columns, schema=SCHEMA), str(number).encode())
        length = int(offset[-1] + blocks[-1]) + 1024
        shards.append(ShardInfo(name=name, bytes=length, samples=count, hash=f"{number:032x}"))
    index_hash, bytes_hash = writer.close()
    info = DatasetInfo(
        name="synthetic",
        source="synthetic",
        parameters={},
        transform=Transform(size=(64, 64), geometry="none", storage="original"),
        splits={"train": SplitInfo(samples=rows, shards=shards)},
        index_hash=index_hash,
        index_bytes_hash=bytes_hash,
        created_by="benchmarks/index.py",
    )
    write_info(info, directory)


def memory(pid: int) -> dict[str, float]:
    """Megabytes of a process: of its own; of the mapped columns, and its share in those."""
    found = {"own": 0.0, "columns": 0.0, "share": 0.0}
    mapped = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, *values = line.split()
        if not name.endswith(":"):  # the first line of a mapping ends with its file
            mapped = line.endswith(".columns")
        elif mapped and name in ("Rss:", "Pss:"):
            found["columns" if name == "Rss:" else "share"] += int(values[0]) / 1024
        elif not mapped and name in ("Private_Clean:", "Private_Dirty:"):
            found["own"] += int(values[0]) / 1024
    return found


def child(directory: Path) -> None:
    """Open the set, take the addresses of a first batch, then wait for the word to end."""
    begin = time.perf_counter()
    from shards.order import EpochOrder
    from shards.reader import open_set

    imported, cpu, before = time.perf_counter(), time.process_time(), memory(os.getpid())
    split = open_set(directory).split("train")
    opened = time.perf_counter()
    order = EpochOrder(split.key_hash, 0, len(split))
    rows = order.rows(np.arange(BATCH, dtype=np.int64))
    ordered = time.perf_counter()
    places = [split.place(row) for row in rows.tolist()]
    done, cpu = time.perf_counter(), time.process_time() - cpu
    columns = vars(split._columns).values()
    for column in columns:
        if isinstance(column, np.ndarray):
            column.max()
    found = {
        "import": imported - begin, "open": opened - imported, "rows()": ordered - opened,
        "addresses": done - ordered, "open to addresses": done - imported,
        "of these on the CPU": cpu, "before": before, "places": len(places),
    }  # fmt: skip
    print(json.dumps(found), flush=True)
    sys.stdin.readline()


def start(directory: Path, cache: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, "--child", str(directory)],
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
    arguments = parser.parse_args()
    if arguments.child is not None:
        child(arguments.child)
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
    times: dict[str, list[dict]] = {"cold": [], "warm": []}
    for _ in range(repeats):
        shutil.rmtree(cache, ignore_errors=True)
        forget(directory)
        for kind in ("cold", "warm"):
            process = start(directory, cache)
            times[kind].append(answer(process))
            end(process)
    print(f"\nseconds, median (min to max) of {repeats}")
    print(f"{'':<20}{'cold':>24}{'warm':>24}")
    for step in (
        "import", "open", "rows()", "addresses", "open to addresses", "of these on the CPU",
    ):  # fmt: skip
        cells = [spread([found[step] for found in times[kind]]) for kind in ("cold", "warm")]
        print(f"{step:<20}{cells[0]:>24}{cells[1]:>24}")
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
