"""Build a shard set in parallel; a build can be restarted, and the bytes of the set stay the same.

With S work items in a shard, one process makes shard i of a split from the work items
[i S, (i + 1) S) and records it in a workplace beside the set. A build that was killed goes on with
the shards that are not recorded. At the end the index is made from the records, and the directory
is renamed into its place.
"""

from __future__ import annotations

import inspect
import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple

import PIL

from shards import pool
from shards.building.sources import SOURCES, Outcome, Reader, Source
from shards.building.workplace import (
    Part,
    Workplace,
    finished,
    read_part,
    sync,
    workplace,
    write_part,
)
from shards.building.writer import NewSample, name_fault, write_shard
from shards.errors import ShardError
from shards.index import FILE_NAME as INDEX_NAME
from shards.index import IndexWriter
from shards.info import FILE_NAME as INFO_NAME
from shards.info import DatasetInfo, Skipped, SplitInfo, created_by, read_info, write_info
from shards.reading.reader import ShardSet, open_set

OnError = Literal["stop", "skip"]
Progress = Callable[[str, int, int], None]

# A worker takes about a second to start. In that time, fewer items than this are done without it.
_ITEMS_A_PROCESS = 256
# The version of the rules by which files become pictures: shards of others are not gone on with.
_RULES = 2


def build(
    source: str,
    out: str | Path,
    *,
    path: str | Path | None = None,
    options: dict[str, Any] | None = None,
    shard_size: int = 1000,
    limit: int | None = None,
    on_error: OnError = "stop",
    processes: int | None = None,
    progress: Progress | None = None,
) -> ShardSet:
    """Build the shard set `out`, or return it untouched when it is there with these parameters.

    Args:
        source: The name of the source, one of `shards.building.sources.SOURCES`.
        out: The directory to make; nothing there is ever overwritten.
        path: The source's files.
        options: The options of the source, by the names of its keyword arguments: `size`,
            `storage`, ...
        shard_size: The number of work items in a tar; a tar has fewer samples if some of its items
            are left out.
        limit: The largest number of work items in each split; the first ones are taken.
        on_error: What to do with a file that is no image, cannot be read or belongs to no split:
            `stop` ends the build, `skip` leaves the file out and lists it in dataset.json.
        processes: The number of processes that work at once; by default as many as pay off on the
            CPUs usable here.
        progress: A function that is called a few times a second with (split, items done, items in
            all).

    A split that gives no sample is left out. The same input gives the same bytes with any number of
    processes, also when the build was killed and started again, as long as the versions of Pillow
    and zlib are the same. Raises `ShardError` for bad input, when `out` holds anything else, and
    when another process is building it.
    """
    _check(shard_size, limit, on_error, processes)
    return build_source(
        _source(source, path, options or {}),
        out,
        shard_size=shard_size,
        limit=limit,
        on_error=on_error,
        processes=processes,
        progress=progress,
    )


def build_source(
    source: Source,
    out: str | Path,
    *,
    shard_size: int = 1000,
    limit: int | None = None,
    on_error: OnError = "stop",
    processes: int | None = None,
    progress: Progress | None = None,
) -> ShardSet:
    """Build a set as `build` does, from a `Source` that the caller has made.

    The parameters of the source must differ whenever its content differs.
    """
    out = Path(out)
    _check(shard_size, limit, on_error, processes)
    content = {**source.parameters, "shard_size": shard_size, "limit": limit}
    parameters = json.loads(json.dumps({**content, "on_error": on_error}))  # as they are read back
    if (existing := _existing(out, source, parameters)) is not None:
        return existing
    if source.strays and on_error == "stop":
        raise ShardError(source.strays[0].reason)
    with _writing(out), workplace(out, _plan(source, content)) as place:
        # Another process may have made the set before this process got the lock.
        if (existing := _existing(out, source, parameters)) is not None:
            return existing
        work = _Work(source, shard_size, limit, progress)
        make = partial(
            _make_shard, place=place, read=source.read, source=source.name, on_error=on_error
        )
        with closing(
            pool.in_order(make, work.jobs(), work.processes(processes), work.watch)
        ) as shards:
            for _ in shards:
                work.finished()
        info = _merge(source, parameters, out.name, place, work.names)
        _publish(info, place, out)
    return open_set(out)


def _check(shard_size: int, limit: int | None, on_error: OnError, processes: int | None) -> None:
    if shard_size < 1 or (limit is not None and limit < 1):
        raise ShardError(f"shard size {shard_size} and limit {limit} must be at least 1")
    if processes is not None and processes < 1:
        raise ShardError(f"{processes} processes cannot build: at least 1 is needed")
    if on_error not in ("stop", "skip"):
        raise ShardError(f"on error {on_error!r} is not one of stop, skip")


def _source(name: str, path: str | Path | None, options: dict[str, Any]) -> Source:
    if name not in SOURCES:
        raise ShardError(f"there is no source {name!r}: use one of {', '.join(SOURCES)}")
    module, _, function = SOURCES[name].partition(":")
    make = getattr(import_module(module), function)
    parameters = inspect.signature(make).parameters.values()
    known = [p.name for p in parameters if p.kind == p.KEYWORD_ONLY]
    if unknown := sorted(options.keys() - set(known)):
        raise ShardError(
            f"the source {name} has no option {unknown[0]!r}: its options are {', '.join(known)}"
        )
    return make(None if path is None else Path(path), **options)


def _existing(out: Path, source: Source, parameters: dict[str, Any]) -> ShardSet | None:
    """The set at `out` if it was built from this source with these parameters; None without one.

    Raises `ShardError` when `out` holds anything else.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not (out / INFO_NAME).is_file():
        raise ShardError(f"{out} exists and is no shard set: choose another --out")
    info = read_info(out)
    if info.source != source.name:
        raise ShardError(
            f"{out} is already a shard set of the source {info.source!r}: choose another --out or "
            "remove it"
        )
    there = {**info.transform.model_dump(mode="json"), **info.parameters}
    asked = {**source.transform.model_dump(mode="json"), **parameters}
    for name in sorted(there.keys() | asked.keys()):
        if there.get(name) != asked.get(name):
            raise ShardError(
                f"{out} is already a shard set with {name} = {there.get(name)} (asked: "
                f"{asked.get(name)}): choose another --out or remove it"
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


def _plan(source: Source, content: dict[str, Any]) -> dict[str, Any]:
    """Everything that decides the bytes of the shards.

    `on_error` does not: the shards that a build finished before a bad image stopped it can also be
    used by a build that skips such images.
    """
    return {
        "source": source.name,
        "parameters": content,
        "transform": source.transform.model_dump(),
        "writer": [created_by(), PIL.__version__, _RULES],
    }


class _Job(NamedTuple):
    """One shard to be made from `items` work items."""

    split: str
    name: str
    items: int
    block: Any


class _Work:
    """Gives the jobs one by one, and knows how much of each split is done.

    `names` are the names of the shards of each split, including shards that may turn out empty.
    """

    def __init__(
        self, source: Source, shard_size: int, limit: int | None, progress: Progress | None
    ) -> None:
        self._source = source
        self._shard_size = shard_size
        self._progress = progress
        self._totals = {
            split: len(items) if limit is None else min(len(items), limit)
            for split, items in source.splits.items()
        }
        self._running: deque[_Job] = deque()
        self._done = dict.fromkeys(self._totals, 0)
        self._shown = dict.fromkeys(self._totals, 0)
        self.names = {
            split: [f"{split}-{i:06d}.tar" for i in range(-(-total // shard_size))]
            for split, total in self._totals.items()
        }

    def processes(self, wanted: int | None) -> int:
        """The number of processes: `wanted` or as many as pay off, but no more than shards."""
        if wanted is None:
            wanted = min(pool.usable_cpus(), sum(self._totals.values()) // _ITEMS_A_PROCESS)
        return max(1, min(wanted, sum(len(names) for names in self.names.values())))

    def jobs(self) -> Iterator[_Job]:
        for split, names in self.names.items():
            starts = range(0, self._totals[split], self._shard_size)
            for start, name in zip(starts, names, strict=True):
                stop = min(start + self._shard_size, self._totals[split])
                block = self._source.splits[split].block(start, stop)
                job = _Job(split, name, stop - start, block)
                self._running.append(job)
                yield job

    def watch(self, counts: Sequence[int]) -> None:
        """Note that the running jobs, in their order, are done with `counts` of their items."""
        done = dict(self._done)
        for job, count in zip(self._running, counts, strict=True):
            done[job.split] += count
        self._show(done)

    def finished(self) -> None:
        """Note that the first of the running jobs is done."""
        job = self._running.popleft()
        self._done[job.split] += job.items
        self._show(self._done)

    def _show(self, done: dict[str, int]) -> None:
        if self._progress is None:
            return
        for split, count in done.items():
            if count > self._shown[split]:
                self._shown[split] = count
                self._progress(split, count, self._totals[split])


def _make_shard(
    job: _Job,
    report: pool.Report,
    *,
    place: Workplace,
    read: Reader,
    source: str,
    on_error: OnError,
) -> None:
    """Make one shard and record it, unless an earlier build has done so; runs in any process."""
    if (part := finished(place, job.name)) is not None:
        if part.skipped and on_error == "stop":
            raise ShardError(part.skipped[0].reason)
        return
    skipped: list[Skipped] = []
    conversions: Counter[str] = Counter()
    samples = _samples(
        job, report, read, source, None if on_error == "stop" else skipped, conversions
    )
    temporary = place.temporary(job.name)
    with _writing(place.set):
        try:
            shard = write_shard(temporary, job.split, job.name, samples)
            if shard is not None:
                os.replace(temporary, place.set / job.name)
        finally:
            temporary.unlink(missing_ok=True)
        write_part(place, job.name, Part.of(shard, skipped, conversions), shard and shard.table)


def _samples(
    job: _Job,
    report: pool.Report,
    read: Reader,
    source: str,
    skipped: list[Skipped] | None,
    conversions: Counter[str],
) -> Iterator[NewSample]:
    """The samples of a job; what was done to their images is counted in `conversions`.

    An item that cannot be read is appended to `skipped`; if `skipped` is None, it raises
    `ShardError`.
    """
    done = 0
    try:
        for done, outcome in enumerate(map(_storable, read(job.block)), start=1):
            if isinstance(outcome, NewSample):
                conversions.update(outcome.done)
                yield outcome
            elif isinstance(outcome, Skipped):
                if skipped is None:
                    raise ShardError(outcome.reason)
                skipped.append(outcome)
            report(done)
    except OSError as error:
        raise ShardError(
            f"cannot read {error.filename or f'the files of {source}'}: {error.strerror or error}"
        ) from None
    if done != job.items:
        raise RuntimeError(f"the source {source} gave {done} outcomes for {job.items} items")


def _storable(outcome: Outcome) -> Outcome:
    """The outcome, or `Skipped` for a sample whose names cannot stand in a set."""
    if not isinstance(outcome, NewSample) or (fault := name_fault(outcome)) is None:
        return outcome
    return Skipped(path=outcome.source.encode(errors="backslashreplace").decode(), reason=fault)


def _merge(
    source: Source,
    parameters: dict[str, Any],
    name: str,
    place: Workplace,
    names: dict[str, list[str]],
) -> DatasetInfo:
    """Make the index from the records of all the shards, in constant memory."""
    index = IndexWriter(place.set / INDEX_NAME)
    splits: dict[str, SplitInfo] = {}
    skipped = [*source.strays, *source.passed_over]
    conversions: Counter[str] = Counter()
    maps: dict[str, None] = {}  # in order of appearance
    for split, shard_names in names.items():
        shards = []
        for shard_name in shard_names:
            part, table = read_part(place, shard_name)
            skipped += part.skipped
            conversions.update(part.conversions)
            if part.shard is not None:
                index.add(table, bytes.fromhex(part.digest))
                shards.append(part.shard)
                maps.update(dict.fromkeys(part.maps))
        if shards:
            splits[split] = SplitInfo(samples=sum(s.samples for s in shards), shards=shards)
    if not splits:
        raise ShardError(f"the source {source.name} gave no image that can be read")
    index_hash, bytes_hash = index.close()
    return DatasetInfo(
        name=name,
        source=source.name,
        parameters=parameters,
        transform=source.transform,
        splits=splits,
        classes=source.classes,
        maps=list(maps) if source.maps is None else source.maps,
        skipped=skipped,
        conversions=dict(sorted(conversions.items())),
        index_hash=index_hash,
        index_bytes_hash=bytes_hash,
        created_by=created_by(),
    )


def _publish(info: DatasetInfo, place: Workplace, out: Path) -> None:
    """Rename the finished set into its place, so that it survives a crash."""
    write_info(info, place.set)
    shards = (shard.name for split in info.splits.values() for shard in split.shards)
    own = {INFO_NAME, INDEX_NAME, *shards}
    for file in place.set.iterdir():
        if file.name not in own:  # a temporary file of a killed build
            file.unlink()
    for synced in (place.set / INDEX_NAME, place.set / INFO_NAME, place.set):
        sync(synced)
    os.rename(place.set, out)
    sync(out.parent)


@contextmanager
def _writing(place: Path) -> Iterator[None]:
    """Turn the error of a disk that is full, read-only or gone into one sentence."""
    try:
        yield
    except OSError as error:
        raise ShardError(
            f"cannot write {error.filename or place}: {error.strerror or error}: mend that and run "
            "the same command again; what is finished is kept"
        ) from None
