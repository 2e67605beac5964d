"""Index WebDataset tars that another program wrote, local or remote; nothing is copied."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import pyarrow as pa

from shards import pool, tars
from shards.errors import ShardError
from shards.index import FILE_NAME as INDEX_NAME
from shards.index import IndexWriter, Row, row_of, shard_digest, shard_table, span_of
from shards.info import FILE_NAME as INFO_NAME
from shards.info import (
    DatasetInfo,
    ShardInfo,
    Skipped,
    SplitInfo,
    Transform,
    created_by,
    read_info,
    write_info,
)
from shards.reading import decode
from shards.reading.files import is_uri, place_of
from shards.remote.stores import Store, store

Location = str | Path
OnError = Literal["stop", "skip"]
Progress = Callable[[str, int, int], None]

# The endings of image files that are not read here. A sample of such a file has lost its image,
# whereas a member such as README.md or a lone caption belongs to no image.
_UNREAD_IMAGES = frozenset(
    "avif heic heif jxl jp2 j2k jpx jxr tga psd ico svg exr hdr pfm apng dng cr2 nef arw".split()
)
_SPLIT_WORD = re.compile(r"(?:^|[-_.])(train|val|validation|valid|test)(?=[-_.]|$)")
_COMPRESSED = re.compile(r"\.(tar\.\w+|tgz)$")


def index_tars(
    location: Location | Sequence[Location],
    out: Location | None = None,
    split: str | None = None,
    processes: int = 1,
    progress: Progress | None = None,
    on_error: OnError = "stop",
    check_pixels: bool = False,
    max_pixels: int = decode.MAX_PIXELS,
) -> DatasetInfo:
    """Index foreign WebDataset tars: write `index.parquet` and `dataset.json`, and copy nothing.

    Args:
        location: A directory or a URI, all of whose `*.tar` are indexed; or tars in one directory:
            one tar, several tars, or a pattern as webdataset has it, such as
            `s3://bucket/data-{000000..000012}.tar`.
        out: The directory for the index; by default that of the tars, if these are local.
        split: The split of all the tars; by default the word train, val, valid, validation or test
            in each file's name, or `train` if there is none.
        processes: The number of processes that read tars at once.
        progress: A function that is called with (split, tars done, tars in all).
        on_error: What to do with a sample whose image cannot be read: `stop` ends the work, `skip`
            leaves the sample out and lists it in dataset.json. The tars stay as they are.
        check_pixels: Whether images, and PNG members that may be maps, are decoded as a whole; by
            default only their headers are read.
        max_pixels: The number of pixels of an image, above which it is refused.

    The image of a sample is its first member with an image's extension. Members that belong to no
    image, such as README.md, are passed over; dataset.json counts them for each tar. The label is
    the member `cls`, if it is an integer. The maps are all other PNG members of one channel whose
    name has two or more parts, such as `label.png`, and that every sample has. Raises `ShardError`
    when a tar is compressed or damaged, when the image of a sample cannot be read and none is to be
    skipped, and when `out` has another index already.
    """
    if on_error not in ("stop", "skip"):
        raise ShardError(f"on error {on_error!r} is not one of stop, skip")
    if max_pixels < 1:
        raise ShardError(f"the limit of {max_pixels} pixels must be at least 1")
    place, names = _find(location)
    if processes < 1:
        raise ShardError(f"{processes} processes cannot work: at least 1 is needed")
    directory = _directory_of(place) if out is None else Path(out)
    with _made(directory):
        temporary = directory / f".indexing.{os.getpid()}.{INDEX_NAME}"
        writer = IndexWriter(temporary)
        try:
            reading = _Reading(on_error, check_pixels, max_pixels)
            jobs = _jobs(place, names, split, reading)
            splits, maps, skipped = _index(writer, jobs, processes, progress)
            index_hash, bytes_hash = writer.close()
            info = DatasetInfo(
                name=directory.absolute().name,
                source="wds",
                parameters={"split": split, **reading.parameters()},
                transform=Transform(size=None, geometry="none: as found", storage="original"),
                location=_recorded(place, directory),
                splits=splits,
                maps=maps,
                skipped=skipped,
                index_hash=index_hash,
                index_bytes_hash=bytes_hash,
                created_by=created_by(),
            )
            if _existing_index(directory, info):
                return read_info(directory)
            os.replace(temporary, directory / INDEX_NAME)
            write_info(info, directory)
            return info
        finally:
            writer.discard()
            temporary.unlink(missing_ok=True)


def _existing_index(directory: Path, info: DatasetInfo) -> bool:
    """True when the directory has this very index already; raises when it has another."""
    if not (directory / INFO_NAME).exists():
        return False
    there = read_info(directory)
    decisive = ("index_hash", "splits", "maps", "location")
    if any(getattr(there, name) != getattr(info, name) for name in decisive):
        raise ShardError(
            f"{directory} has an index already, and it differs from what the tars and the options "
            "give now: choose another directory with --out, or remove "
            f"{INFO_NAME} and {INDEX_NAME} there"
        )
    return True


def _find(location: Location | Sequence[Location]) -> tuple[str | Path, list[str]]:
    """The directory or URI of the tars, and their names, sorted."""
    given = [location] if isinstance(location, str | Path) else list(location)
    expanded = [one for each in given for one in _expanded(each)]
    if len(expanded) == 1 and not _names_a_tar(expanded[0]):
        return expanded[0], _tars_in(expanded[0])
    if not expanded:
        raise ShardError("no tars were named that could be indexed")
    parents, names = zip(*map(_cut, expanded), strict=True)
    if len({str(p.resolve() if isinstance(p, Path) else p) for p in parents}) > 1:
        raise ShardError(
            f"the tars of one shard set must lie in one directory, but there are {parents[0]} "
            f"and {next(p for p in parents if p != parents[0])}"
        )
    if isinstance(parents[0], Path):
        for path in (parents[0] / name for name in names):
            if not path.is_file():
                raise ShardError(f"there is no tar {path}")
    return parents[0], sorted(set(names))


def _expanded(location: Location) -> list[Location]:
    """The locations that a pattern with braces stands for, as in the shell and in webdataset."""
    if "{" not in str(location) or (not is_uri(location) and Path(location).exists()):
        return [location]
    from braceexpand import braceexpand

    try:
        found = list(braceexpand(str(location)))
    except ValueError as error:
        raise ShardError(f"the pattern {location} cannot be expanded: {error}") from None
    return [one if is_uri(one) else Path(one) for one in found]


def _names_a_tar(location: Location) -> bool:
    if is_uri(location):
        return urlsplit(str(location)).path.endswith(".tar")
    return not Path(location).is_dir()


def _cut(location: Location) -> tuple[str | Path, str]:
    """The directory or URI of a tar, and its name."""
    if not is_uri(location):
        return Path(location).parent, Path(location).name
    parts = urlsplit(str(location))
    above, name = posixpath.split(parts.path)
    return urlunsplit(parts._replace(path=above)), name


def _tars_in(location: Location) -> list[str]:
    inside = store(location).names()
    visible = [name for name in inside if not name.startswith(".")]
    found = [name for name in visible if name.endswith(".tar")]
    packed = [name for name in visible if _COMPRESSED.search(name)]
    if not found and packed:
        raise ShardError(
            f"{location} holds only compressed tars ({packed[0]}), which cannot be read at any "
            "offset: uncompress them first (for example `gunzip`)"
        )
    if not found:
        raise ShardError(f"there are no tars to index in {location}")
    return found


def _directory_of(place: str | Path) -> Path:
    directory = store(place).local_path("")
    if directory is None:
        raise ShardError(
            f"{store(place).uri} is remote and nothing is written there: name a directory for "
            "its index with --out"
        )
    return directory


def _recorded(place: str | Path, directory: Path) -> str | None:
    """The place of the tars as dataset.json in `directory` records it, without secrets.

    A place below the directory is recorded relative to it, so that both can be moved together.
    """
    tars_store = store(place)
    local = tars_store.local_path("")
    if local is None:
        return tars_store.uri.replace("***@", "", 1)
    here, there = directory.resolve(), local.resolve()
    if here == there:
        return None
    return there.relative_to(here).as_posix() if there.is_relative_to(here) else str(there)


@contextmanager
def _made(directory: Path) -> Iterator[None]:
    """Make the directory if it does not exist; remove a new one that is empty at the end."""
    new = not directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise ShardError(f"{directory} cannot be written: {error.strerror}") from None
    finally:
        if new:
            with suppress(OSError):  # the directory is not empty
                directory.rmdir()


class _Reading(NamedTuple):
    """How the samples of a tar are read; see `index_tars`."""

    on_error: OnError
    check_pixels: bool
    max_pixels: int

    def parameters(self) -> dict[str, object]:
        """What dataset.json records of it: what is not the default."""
        found: dict[str, object] = {}
        if self.on_error != "stop":
            found["on_error"] = self.on_error
        if self.check_pixels:
            found["decode"] = True
        if self.max_pixels != decode.MAX_PIXELS:
            found["max_pixels"] = self.max_pixels
        return found


class _Job(NamedTuple):
    """One tar to index."""

    place: str | Path
    name: str
    split: str
    reading: _Reading


class _Indexed(NamedTuple):
    """What was found in one tar; `maps` is None when the tar has no samples."""

    info: ShardInfo
    table: pa.Table
    digest: bytes
    maps: set[str] | None
    skipped: list[Skipped]


def _jobs(place: str | Path, names: list[str], split: str | None, reading: _Reading) -> list[_Job]:
    jobs = [_Job(place, name, split or _split_of(name), reading) for name in names]
    return sorted(jobs, key=lambda job: (job.split, job.name))


def _split_of(name: str) -> str:
    match = _SPLIT_WORD.search(name)
    return match[1] if match else "train"


def _index(
    writer: IndexWriter, jobs: list[_Job], processes: int, progress: Progress | None
) -> tuple[dict[str, SplitInfo], list[str], list[Skipped]]:
    """Index all tars.

    Returns the splits, the members that are maps in every sample, and what was left out.
    """
    shards: dict[str, list[ShardInfo]] = {job.split: [] for job in jobs}
    maps: set[str] | None = None
    skipped: list[Skipped] = []
    with closing(pool.in_order(_index_tar, jobs, processes, lambda _: None)) as results:
        for job, found in zip(jobs, results, strict=True):
            writer.add(found.table, found.digest)
            shards[job.split].append(found.info)
            skipped += found.skipped
            if found.maps is not None:
                maps = found.maps if maps is None else maps & found.maps
            if progress is not None:
                total = sum(other.split == job.split for other in jobs)
                progress(job.split, len(shards[job.split]), total)
    splits = {
        name: SplitInfo(samples=sum(shard.samples for shard in found), shards=found)
        for name, found in shards.items()
    }
    if not any(split.samples for split in splits.values()):
        first = f": {skipped[0].path}: {skipped[0].reason}" if skipped else ""
        raise ShardError(f"the tars in {jobs[0].place} hold no sample with an image{first}")
    return splits, sorted(maps or ()), skipped


def _index_tar(job: _Job, report: Callable[[int], None]) -> _Indexed:
    """Index one tar in one sequential pass."""
    there = store(job.place)
    where = _where(there, job.name)
    rows: list[Row] = []
    maps: set[str] | None = None
    skipped: list[Skipped] = []
    strangers = _Strangers(job.name)
    try:
        with there.open(job.name) as stream:
            content = tars.OnePass(stream)
            for key, members in tars.groups(content, where):
                begin, span = span_of(members)
                data = content.between(begin, begin + span)
                content.let_go(begin + span)
                if belongs_to_no_image(members):
                    strangers.add(key, members)
                    continue
                try:
                    row, found = _row(job, key, members, data)
                except ValueError as error:
                    if job.reading.on_error == "stop":
                        raise ShardError(
                            f"{sample_place(where, key, members)}: {error}: mend the tar, or leave "
                            "the sample out with --on-error skip"
                        ) from None
                    place = sample_place(job.name, key, members)
                    skipped.append(Skipped(path=place, reason=str(error)))
                    continue
                rows.append(row)
                maps = found if maps is None else maps & found
                report(len(rows))
    except OSError as error:
        raise ShardError(f"{where} cannot be read: {error.strerror or error}") from None
    table = shard_table(rows)
    info = ShardInfo(name=job.name, bytes=content.reached, samples=len(rows), hash=content.hash)
    return _Indexed(
        info,
        table,
        shard_digest(table),
        maps,
        [*skipped, *strangers.skipped({row.key for row in rows})],
    )


class _Strangers:
    """Counts the members of a tar that stand in samples without an image."""

    def __init__(self, tar: str) -> None:
        self._tar = tar
        self._groups: list[tuple[str, list[tars.Member]]] = []

    def add(self, key: str, members: list[tars.Member]) -> None:
        self._groups.append((key, members))

    def skipped(self, keys: set[str]) -> list[Skipped]:
        """What dataset.json says about them in a tar whose images have these keys."""
        apart = [group for group in self._groups if group[0] in keys]
        alone = [group for group in self._groups if group[0] not in keys]
        return [
            *self._counted(apart, "not beside the image of the same key"),
            *self._counted(alone, "of no image"),
        ]

    def _counted(self, groups: list[tuple[str, list[tars.Member]]], what: str) -> list[Skipped]:
        if not groups:
            return []
        key, (first, *_) = groups[0]
        count = sum(len(members) for _, members in groups)
        reason = f"members {what}: {count}, the first is {key}.{first.name} at byte {first.offset}"
        return [Skipped(path=self._tar, reason=reason)]


def sample_place(tar: str, key: str, members: list[tars.Member]) -> str:
    """The place of a sample, as messages and dataset.json name it."""
    return f"{tar}, key {key!r}, byte {members[0].offset}"


def belongs_to_no_image(members: list[tars.Member]) -> bool:
    """Whether none of the members is an image, by its name, or one of a format not read here."""
    names = [member.name for member in members]
    return _image_of(names) is None and not any(
        name.rpartition(".")[2] in _UNREAD_IMAGES for name in names
    )


def _image_of(names: list[str]) -> str | None:
    """The member that is the image of a sample; None if there is none."""
    for endings in (decode.EXTENSIONS, decode.RARE_EXTENSIONS):
        for name in names:
            if name in endings:
                return name
        for name in names:
            if name.rpartition(".")[2] in endings:
                return name
    return None


def _where(there: Store, name: str) -> str:
    return str(there.local_path(name) or place_of(there.uri, name))


def _row(job: _Job, key: str, members: list[tars.Member], span: bytes) -> tuple[Row, set[str]]:
    """The row of a sample, and the members of the sample that may be maps.

    Raises `ValueError` with the reason when the sample cannot be read.
    """
    names = [member.name for member in members]
    if (second := tars.repeated(members)) is not None:
        raise ValueError(f"the sample {tars.two_members(second)}")
    if (image := _image_of(names)) is None:
        raise ValueError(f"the sample has no image that can be read (it has {', '.join(names)})")
    begin = members[0].offset
    contents = {m.name: span[m.offset - begin :][: m.size] for m in members}
    most = job.reading.max_pixels
    try:
        width, height = decode.image_size(contents[image], most)
        if job.reading.check_pixels:
            decode.decode(contents[image], max_pixels=most)
    except decode.TooLarge as error:
        raise ValueError(f"{image}: {error}: raise --max-pixels if you trust the file") from None
    except ValueError as error:
        raise ValueError(f"{image} cannot be read as an image: {error}") from None
    row = row_of(
        job.split, job.name, key, members, span,
        image_ext=image, width=width, height=height,
        label=_label(contents.get("cls")), source=job.name,
    )  # fmt: skip
    others = {
        name: content
        for name, content in contents.items()
        if name != image and name.endswith(".png") and name.count(".")
    }
    if job.reading.check_pixels:
        _check_pngs(others, most)
    return row, {name for name, content in others.items() if _is_map(content)}


def _check_pngs(contents: Mapping[str, bytes], max_pixels: int) -> None:
    for name, content in contents.items():
        try:
            decode.open_png(content, max_pixels)
        except ValueError as error:
            raise ValueError(f"{name} cannot be read as an image: {error}") from None


def _is_map(png: bytes) -> bool:
    """Whether a PNG has one channel, grey or indices of a palette, according to its header."""
    return png[:8] == b"\x89PNG\r\n\x1a\n" and png[25:26] in (b"\0", b"\3")


def _label(content: bytes | None) -> int | None:
    """The label in a member `cls`: a class, counted from 0; None if it holds anything else."""
    try:
        label = -1 if content is None else int(content)
    except ValueError:
        return None
    return label if 0 <= label < 1 << 63 else None
