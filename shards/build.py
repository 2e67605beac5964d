"""Build a shard set in a temporary sibling directory and rename it into its place."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from shards.errors import ShardError
from shards.index import FILE_NAME as INDEX_NAME
from shards.index import IndexWriter
from shards.info import FILE_NAME as INFO_NAME
from shards.info import DatasetInfo, Skipped, SplitInfo, created_by, read_info, write_info
from shards.reader import ShardSet, open_set
from shards.sources import Source
from shards.writer import SplitWriter

SOURCES = ("photos", "folder")
OnError = Literal["stop", "skip"]
Progress = Callable[[str, int, int], None]


def build(
    source: str,
    out: str | Path,
    *,
    path: str | Path | None = None,
    size: int | None = None,
    shard_size: int = 1000,
    test_fraction: float = 0.1,
    seed: int = 0,
    limit: int | None = None,
    on_error: OnError = "stop",
    progress: Progress | None = None,
) -> ShardSet:
    """Build the shard set `out`, or return it untouched when it is there with these parameters.

    Args:
        source: `photos` (see `shards.sources.photos`) or `folder` (`shards.sources.folder`).
        out: the directory to make; nothing there is ever overwritten.
        path: the folder of images, for `folder`.
        size: stored height and width in pixels; `photos`: 64; `folder`: by default the
            original bytes are kept.
        shard_size: samples in a tar.
        test_fraction: share of the files in the test split, for a `folder` without splits.
        seed: of that draw.
        limit: at most so many work items in each split, the first ones.
        on_error: `skip` leaves images out that cannot be read and lists them in dataset.json.
        progress: called with (split, items done, items in all).

    The same input gives the same bytes, as far as Pillow and zlib are the same. Raises
    `ShardError` for bad input and when `out` holds anything else.
    """
    out = Path(out)
    if shard_size < 1 or (limit is not None and limit < 1):
        raise ShardError(f"shard size {shard_size} and limit {limit} must be at least 1")
    if on_error not in ("stop", "skip"):
        raise ShardError(f"on error {on_error!r} is not one of stop, skip")
    plan = _source(source, path, size, test_fraction, seed)
    parameters = {
        **plan.parameters, "shard_size": shard_size, "limit": limit, "on_error": on_error,
    }  # fmt: skip
    if (existing := _existing(out, plan.name, parameters)) is not None:
        return existing
    with _workplace(out) as directory:
        info = _write(plan, parameters, out.name, directory, shard_size, limit, on_error, progress)
        write_info(info, directory)
        try:
            os.rename(directory, out)
        except OSError:
            # Somebody else was faster; theirs is as good if it was built the same way.
            if (existing := _existing(out, plan.name, parameters)) is not None:
                return existing
            raise
    return open_set(out)


def _source(
    name: str, path: str | Path | None, size: int | None, test_fraction: float, seed: int
) -> Source:
    if name == "photos":
        from shards.sources.photos import photos

        if path is not None:
            raise ShardError(f"the source photos takes no path ({path}): did you mean `folder`?")
        return photos(size)
    if name == "folder":
        from shards.sources.folder import folder

        if path is None:
            raise ShardError("the source folder needs the path of a folder of images")
        return folder(Path(path), size, test_fraction, seed)
    raise ShardError(f"there is no source {name!r}: use one of {', '.join(SOURCES)}")


def _existing(out: Path, source: str, parameters: dict) -> ShardSet | None:
    """The set at `out` if it was built from this source with these parameters."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not (out / INFO_NAME).is_file():
        raise ShardError(f"{out} exists and is no shard set: choose another --out")
    info = read_info(out)
    if info.source != source:
        raise ShardError(
            f"{out} is already a shard set of the source {info.source!r}: choose another --out or "
            "remove it"
        )
    if info.parameters != parameters:
        names = sorted(info.parameters.keys() | parameters.keys())
        name = next(n for n in names if info.parameters.get(n) != parameters.get(n))
        raise ShardError(
            f"{out} is already a shard set with {name} = {info.parameters.get(name)} (asked: "
            f"{parameters.get(name)}): choose another --out or remove it"
        )
    for split in info.splits.values():
        for shard in split.shards:
            file = out / shard.name
            if not file.is_file() or file.stat().st_size != shard.bytes:
                raise ShardError(
                    f"{file} is missing or has another size than when it was built: "
                    f"remove {out} and build it again"
                )
    return open_set(out)


@contextmanager
def _workplace(out: Path) -> Iterator[Path]:
    """A locked temporary directory beside `out`; what killed builds left there is cleared."""
    prefix = f".{out.name}.building-"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for stale in out.parent.glob(f"{prefix}*"):
            _remove_if_abandoned(stale)
        directory = Path(tempfile.mkdtemp(prefix=prefix, dir=out.parent))
    except OSError as error:
        raise ShardError(f"cannot write beside {out}: {error.strerror}") from None
    directory.chmod(0o755)
    lock = _lock(directory)
    try:
        yield directory
    finally:
        if lock is not None:
            os.close(lock)
        shutil.rmtree(directory, ignore_errors=True)


def _lock(directory: Path) -> int | None:
    """Lock a directory until its descriptor closes, also by death; None if it cannot be had."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _remove_if_abandoned(directory: Path) -> None:
    try:  # a young one may be about to be locked
        young = time.time() - directory.stat().st_mtime < 60
    except FileNotFoundError:
        return
    if not young and (lock := _lock(directory)) is not None:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)


def _write(
    plan: Source,
    parameters: dict,
    name: str,
    directory: Path,
    shard_size: int,
    limit: int | None,
    on_error: OnError,
    progress: Progress | None,
) -> DatasetInfo:
    index = IndexWriter(directory / INDEX_NAME)
    skipped: list[Skipped] = []
    splits: dict[str, SplitInfo] = {}
    for split, items in plan.splits.items():
        writer = SplitWriter(directory, split, shard_size, index)
        items = items[:limit]
        for done, item in enumerate(items, start=1):
            try:
                sample = plan.encode(item)
            except ShardError as error:
                if on_error == "stop":
                    raise
                skipped.append(Skipped(path=item.path, reason=str(error)))
            else:
                if sample is not None:
                    writer.write(sample)
            if progress is not None:
                progress(split, done, len(items))
        splits[split] = writer.close()
    if not any(split.samples for split in splits.values()):
        raise ShardError(f"the source {plan.name} gave no image that can be read")
    index_hash, bytes_hash = index.close()
    return DatasetInfo(
        name=name,
        source=plan.name,
        parameters=parameters,
        transform=plan.transform,
        splits=splits,
        classes=plan.classes,
        skipped=skipped,
        index_hash=index_hash,
        index_bytes_hash=bytes_hash,
        created_by=created_by(),
    )
