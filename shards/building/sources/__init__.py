"""The sources of the images of a new shard set; each file holds one source or a few alike.

A source lists the work items of its splits as `Items`, and says how a block of items becomes
samples. Blocks are independent of one another, so that any process can read any block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from shards.building.pictures import Picture, Pictures
from shards.building.writer import NewSample
from shards.errors import ShardError
from shards.info import Skipped, Transform
from shards.reading.decode import NotTaken

SOURCES = {
    "photos": "shards.building.sources.photos:photos",
    "digits": "shards.building.sources.digits:digits",
    "glyphs": "shards.building.sources.glyphs:glyphs",
    "shapes": "shards.building.sources.shapes:shapes",
    "folder": "shards.building.sources.folder:folder",
    "kodak": "shards.building.sources.folder:kodak",
    "clic": "shards.building.sources.folder:clic",
    "celeba": "shards.building.sources.celeba:celeba",
    "lsun": "shards.building.sources.lsun:lsun",
    "cityscapes": "shards.building.sources.cityscapes:cityscapes",
    "ade20k": "shards.building.sources.ade20k:ade20k",
    "coco_stuff": "shards.building.sources.coco_stuff:coco_stuff",
    "mnist": "shards.building.sources.mnist:mnist",
    "fashion-mnist": "shards.building.sources.mnist:fashion_mnist",
    "svhn": "shards.building.sources.svhn:svhn",
    "cifar10": "shards.building.sources.cifar10:cifar10",
    "imagenet32": "shards.building.sources.imagenet32:imagenet32",
}

# The outcome of reading one item: a sample; or `Skipped` for an item that cannot be read, with the
# sentence that names it; or None when the source's own rule leaves the item out.
Outcome = NewSample | Skipped | None
Reader = Callable[[Any], Iterator[Outcome]]


class Items(Protocol):
    """The work items of a split, in the order of the rows; they need not be held in memory."""

    def __len__(self) -> int: ...

    def block(self, start: int, stop: int) -> Any:
        """The items [start, stop) in a small picklable form that the source's `read` takes."""


@dataclass(frozen=True)
class Listed:
    """Items that are listed in memory; a block is a tuple of items."""

    items: Sequence[Any]

    def __len__(self) -> int:
        return len(self.items)

    def block(self, start: int, stop: int) -> tuple[Any, ...]:
        return tuple(self.items[start:stop])


@dataclass(frozen=True)
class Source:
    """A data set that is about to be built.

    Attributes:
        name: The name of the source.
        parameters: Everything that decides the content, in JSON values, for `dataset.json`.
        transform: The transform of the images.
        splits: The work items of each split.
        read: A function from a block of items to exactly one outcome for each item, in order. It is
            picklable, since worker processes call it.
        classes: The names of the labels 0, 1, ...
        maps: The members that are maps of pixels; None means every image member after the first.
        strays: Files that belong to no split. They end a build, unless it skips what it cannot
            read.
        passed_over: Files that are no part of the data set, such as a licence beside it. They end
            no build; dataset.json names them.
    """

    name: str
    parameters: dict[str, Any]
    transform: Transform
    splits: Mapping[str, Items]
    read: Reader
    classes: list[str] = field(default_factory=list)
    maps: list[str] | None = None
    strays: list[Skipped] = field(default_factory=list)
    passed_over: list[Skipped] = field(default_factory=list)


class Item(Protocol):
    """A work item of `read_each`; its path is listed in dataset.json if the item is skipped."""

    @property
    def path(self) -> str: ...


T = TypeVar("T", bound=Item)


def read_each(
    encode: Callable[[T], NewSample | None], block: Iterable[T]
) -> Iterator[NewSample | Skipped | None]:
    """Read a block item by item; an item for which `encode` raises `ShardError` is `Skipped`.

    The `read` of a source is `partial(read_each, encode)`, or, if `encode` has further arguments,
    `partial(read_each, partial(encode, root=root))`. `encode` must be a function at the top level
    of a module, so that it can be pickled.
    """
    for item in block:
        try:
            yield encode(item)
        except ShardError as error:
            yield Skipped(path=item.path, reason=str(error))


def passed_over(where: str, names: Sequence[str], what: str) -> list[Skipped]:
    """What dataset.json says, in one line, of files that are no part of the data set.

    Args:
        where: The folder or the archive that holds them.
        names: Their paths in it.
        what: What they are not, such as `images of LSUN`.
    """
    if not names:
        return []
    reason = f"files that are no {what}: {len(names)}, the first is {min(names)}"
    return [Skipped(path=where, reason=reason)]


def stored_picture(stored: Pictures, data: bytes, where: object) -> Picture:
    """An image file's bytes as the set stores them.

    Raises a `ShardError` that names `where` the file lies when the bytes are no image, or one of a
    kind that is not taken.
    """
    try:
        return stored.encode(data)
    except ValueError as error:
        raise unreadable(where, error) from None


def unreadable(where: object, reason: object) -> ShardError:
    """The error for an image that cannot be stored; `where` names the image in full."""
    if isinstance(reason, NotTaken):
        return ShardError(f"{where} is not taken: {reason}, or leave it out with --on-error skip")
    return ShardError(
        f"{where} is not an image that can be read ({reason}): mend it, or leave it out with "
        "--on-error skip"
    )
