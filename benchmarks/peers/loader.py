"""One data loader, timed in a process of its own: `benchmarks/loaders.py` runs it, also in other
environments.

    python loader.py prepare READER IMAGES OUT          the images in the loader's own format
    python loader.py run READER DATA --batch B --workers W --seconds S

IMAGES is a folder of image files. `run` prints {"samples", "cpu_s", "wall_s"}, child processes
included, over the batches after the first 20 (start-up, lazy imports, first epoch's shuffle).
Every reader shuffles, decodes to uint8 RGB arrays [H, W, 3] and stacks batches.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WARM_BATCHES = 20


def pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix in (".png", ".jpg"))


# --- gencomp, and its limit: raw positional reads with the same decoder ---------------------------


def prepare_gencomp(images: Path, out: Path) -> None:
    from shards.building.build import build

    build("folder", out, path=images, options={"test_fraction": 0.0})


def gencomp(data: Path, batch: int, workers: int) -> Iterator[int]:
    import shards
    from shards.reading.order import EpochOrder
    from shards.reading.stream import training_batches

    split = shards.open_set(data).split("train")
    order = EpochOrder(split.key_hash, 0, len(split))
    for got in training_batches(split, order, batch, 0, 1, 0, threads=workers):
        yield len(got.images)


def places(data: Path) -> list[tuple[str, int, int]]:
    """The tar, the offset and the size of every image."""
    import pyarrow.parquet as pq

    table = pq.read_table(data / "index.parquet", columns=["shard", "image_offset", "image_size"])
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    return [(str(data / shard), offset, size) for shard, offset, size in rows]


def pread(data: Path, batch: int, workers: int) -> Iterator[int]:
    """Nothing but `os.pread` and the decoder, in random order; one process each worker."""
    table = places(data)
    if workers == 1:
        yield from _pread(table, batch, seed=0)
        return
    context = multiprocessing.get_context("fork")
    counter, stop = context.Semaphore(0), context.Event()

    def work(seed: int) -> None:
        for _ in _pread(table, batch, seed):
            counter.release()
            if stop.is_set():
                return

    processes = [context.Process(target=work, args=(seed,)) for seed in range(workers)]
    for process in processes:
        process.start()
    try:
        while True:
            counter.acquire()
            yield batch
    finally:
        stop.set()
        for process in processes:
            process.join()


def _pread(table: list[tuple[str, int, int]], batch: int, seed: int) -> Iterator[int]:
    from shards.reading.decode import decode

    descriptors = {name: os.open(name, os.O_RDONLY) for name, _, _ in table}
    order, rng = list(table), random.Random(seed)
    done = 0
    while True:
        rng.shuffle(order)
        for name, offset, size in order:
            decode(os.pread(descriptors[name], size, offset))
            done += 1
            if done % batch == 0:
                yield batch


# --- torch's DataLoader over files, as ImageFolder does -------------------------------------------


class Files:
    def __init__(self, folder: Path) -> None:
        self.paths = files(folder)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> np.ndarray:
        return pillow(self.paths[i].read_bytes())


def imagefolder(data: Path, batch: int, workers: int) -> Iterator[int]:
    from torch.utils.data import DataLoader

    loader = DataLoader(
        Files(data), batch, shuffle=True, num_workers=workers, collate_fn=np.stack, drop_last=True,
        persistent_workers=True,
    )  # fmt: skip
    while True:
        for got in loader:
            yield len(got)


# --- webdataset, with its own decoder and with ours -----------------------------------------------


def webdataset(data: Path, batch: int, workers: int) -> Iterator[int]:
    yield from _webdataset(data, batch, workers, pillow)


def webdataset_ours(data: Path, batch: int, workers: int) -> Iterator[int]:
    from shards.reading.decode import decode

    yield from _webdataset(data, batch, workers, decode)


def _webdataset(
    data: Path, batch: int, workers: int, decoder: Callable[[bytes], np.ndarray]
) -> Iterator[int]:
    import webdataset as wds

    urls = [str(p) for p in sorted(data.glob("*.tar"))]
    dataset = (
        wds.WebDataset(urls, shardshuffle=100, nodesplitter=None, empty_check=False)
        .shuffle(1000)
        .to_tuple("png;jpg")
        .map(lambda sample: decoder(sample[0]))
        .batched(batch, collation_fn=np.stack, partial=False)
    )
    loader = wds.WebLoader(dataset.repeat(), batch_size=None, num_workers=workers)
    for got in loader:
        yield len(got)


# --- Grain, with our decoder ----------------------------------------------------------------------


class Places:
    """The images of our tars as a source of random access."""

    def __init__(self, data: Path) -> None:
        self.table = places(data)
        self.open: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, i: Any) -> bytes:
        name, offset, size = self.table[i]
        if name not in self.open:
            self.open[name] = os.open(name, os.O_RDONLY)
        return os.pread(self.open[name], size, offset)


def grain(data: Path, batch: int, workers: int) -> Iterator[int]:
    import grain as gr

    from shards.reading.decode import decode

    dataset = gr.MapDataset.source(Places(data)).shuffle(seed=0).repeat().map(decode)
    batches = dataset.to_iter_dataset(gr.ReadOptions(num_threads=workers)).batch(batch)
    for got in batches:
        yield len(got)


# --- MosaicML Streaming ---------------------------------------------------------------------------


def import_streaming() -> Any:
    """It imports torchvision, whose PyPI build needs CUDA's torch; nothing used here calls it."""
    from importlib.machinery import ModuleSpec
    from unittest.mock import MagicMock

    for part in ("", ".datasets", ".transforms", ".transforms.functional"):
        name = f"torchvision{part}"
        sys.modules[name] = MagicMock(
            __spec__=ModuleSpec(name, None), VisionDataset=type("VisionDataset", (), {})
        )
    import streaming

    return streaming


def prepare_mosaic(images: Path, out: Path) -> None:
    with import_streaming().MDSWriter(out=str(out), columns={"image": "bytes"}) as writer:
        for path in files(images):
            writer.write({"image": path.read_bytes()})


def mosaic(data: Path, batch: int, workers: int) -> Iterator[int]:
    from torch.utils.data import DataLoader

    class Images(import_streaming().StreamingDataset):
        def __getitem__(self, at: Any) -> Any:
            return pillow(super().__getitem__(at)["image"])

    dataset = Images(local=str(data), shuffle=True, batch_size=batch)
    loader = DataLoader(dataset, batch, num_workers=workers, collate_fn=np.stack, drop_last=True)
    while True:
        for got in loader:
            yield len(got)


# --- LitData --------------------------------------------------------------------------------------


def read_bytes(path: str) -> bytes:
    return Path(path).read_bytes()


def prepare_litdata(images: Path, out: Path) -> None:
    import litdata

    inputs = [str(p) for p in files(images)]
    litdata.optimize(read_bytes, inputs, str(out), chunk_bytes="64MB", num_workers=1)


def litdata(data: Path, batch: int, workers: int) -> Iterator[int]:
    import litdata as lit

    class Images(lit.StreamingDataset):
        def __getitem__(self, index: Any) -> Any:
            return pillow(super().__getitem__(index))

    dataset = Images(str(data), shuffle=True, drop_last=True)
    loader = lit.StreamingDataLoader(
        dataset, batch_size=batch, num_workers=workers, collate_fn=np.stack
    )
    while True:
        for got in loader:
            yield len(got)


# --------------------------------------------------------------------------------------------------

READERS = {
    "gencomp": gencomp,
    "pread": pread,
    "imagefolder": imagefolder,
    "webdataset": webdataset,
    "webdataset_ours": webdataset_ours,
    "grain": grain,
    "mosaic": mosaic,
    "litdata": litdata,
}
PREPARE = {"gencomp": prepare_gencomp, "mosaic": prepare_mosaic, "litdata": prepare_litdata}


def tree_cpu() -> float:
    """CPU seconds of this process and its living descendants, and of children that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = time.process_time() + ended.ru_utime + ended.ru_stime
    return total + sum(_cpu(child) for child in _descendants(os.getpid()))


def _descendants(pid: int) -> list[int]:
    found = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text(encoding="utf-8").split()):
                found += [child, *_descendants(child)]
    return found


def _cpu(pid: int) -> float:
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def run(reader: Iterator[int], seconds: float) -> dict[str, float]:
    for _ in range(WARM_BATCHES):
        next(reader)
    cpu, wall, samples = tree_cpu(), time.perf_counter(), 0
    while time.perf_counter() - wall < seconds:
        samples += next(reader)
    return {
        "samples": samples,
        "cpu_s": tree_cpu() - cpu,
        "wall_s": time.perf_counter() - wall,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=("prepare", "run"))
    parser.add_argument("reader", choices=READERS)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0)
    words = parser.parse_args()
    if words.task == "prepare":
        PREPARE[words.reader](words.data, words.out)
        return
    found = run(READERS[words.reader](words.data, words.batch, words.workers), words.seconds)
    print(json.dumps(found), flush=True)
    os._exit(0)  # some loaders leave threads that never end


if __name__ == "__main__":
    main()
