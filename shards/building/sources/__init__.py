"""Where the images of a new shard set come from, one source a file.

A source says what its splits hold as `Items`, and how a block of them becomes samples. Blocks are
independent of one another, so that any process can read any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from shards.building.pictures import Picture, Pictures
from shards.building.writer import NewSample
from shards.errors import ShardError
from shards.info import Skipped, Transform

SOURCES = {
    "photos": "shards.building.sources.photos:photos",
    "digits": "shards.building.sources.digits:digits",
    "folder": "shards.building.sources.folder:folder",
    "kodak": "shards.building.sources.folder:kodak",
    "clic": "shards.building.sources.folder:clic",
    "celeba": "shards.building.sources.celeba:celeba",
    "lsun": "shards.building.sources.lsun:lsun",
    "cityscapes": "shards.building.sources.cityscapes:cityscapes",
    "ade20k": "shards.building.sources.ade20k:ade20k",
    "mnist": "shards.building.sources.mnist:mnist",
    "fashion-mnist": "shards.building.sources.mnist:fashion_mnist",
    "svhn": "shards.building.sources.svhn:svhn",
    "cifar10": "shards.building.sources.cifar10:cifar10",
    "imagenet32": "shards.building.sources.imagenet32:imagenet32",
}

# What became of one item: a sample; an item that cannot be read, with the sentence that names it;
# None when the source's own rule leaves it out.
Outcome = NewSample | Skipped | None
Reader = Callable[[Any], Iterator[Outcome]]


class Items(Protocol):
    """The work items of a split, in the order of the rows; they need not be held in memory."""

    def __len__(self) -> int: ...

    def block(self, start: int, stop: int) -> Any:
        """Items [start, stop) in a small picklable form that the source's `read` understands."""


@dataclass(frozen=True)
class Listed:
    """Items that are listed in memory; a block is a tuple of them."""

    items: Sequence[Any]

    def __len__(self) -> int:
        return len(self.items)

    def block(self, start: int, stop: int) -> tuple[Any, ...]:
        return tuple(self.items[start:stop])


@dataclass(frozen=True)
class Source:
    """A data set about to be built.

    parameters: everything that decides the content, for `dataset.json`; JSON values.
    splits: the work items of each split.
    read: one block of items to exactly one outcome an item, in order; picklable, since worker
        processes call it.
    classes: names of the labels 0, 1, ...
    maps: the members that are maps of pixels; None: every image member after the first is one.
    """

    name: str
    parameters: dict[str, Any]
    transform: Transform
    splits: Mapping[str, Items]
    read: Reader
    classes: list[str] = field(default_factory=list)
    maps: list[str] | None = None


class Item(Protocol):
    """A work item of `read_each`: it knows the path that its sentence and the skip list name."""

    @property
    def path(self) -> str: ...


T = TypeVar("T", bound=Item)


def read_each(
    encode: Callable[[T], NewSample | None], block: Iterable[T]
) -> Iterator[NewSample | Skipped | None]:
    """Read a block item by item; an item that `encode` refuses by `ShardError` is `Skipped`.

    A source's `read` is `partial(read_each, encode)`, or with arguments of its own
    `partial(read_each, partial(encode, root=root))`; `encode` is a function of a module.
    """
    for item in block:
        try:
            yield encode(item)
        except ShardError as error:
            yield Skipped(path=item.path, reason=str(error))


def stored_picture(stored: Pictures, data: bytes, where: object) -> Picture:
    """An image file's bytes as the set stores them; `ShardError` that names `where` it lies."""
    try:
        return stored.encode(data)
    except ValueError as error:
        raise unreadable(where, error) from None


def unreadable(where: object, reason: object) -> ShardError:
    """The one sentence for an image that cannot be decoded; `where` names it in full."""
    return ShardError(
        f"{where} is not an image that can be read ({reason}): mend it, or leave it out with "
        "--on-error skip"
    )
