"""`lsun`: one category of LSUN, from its LMDB (`bedroom_train_lmdb`) or from exported images.

The path is the database's folder, the folder that holds it, or a folder of images exported from
it, searched recursively, each named by its key (LSUN's own `data.py export` makes one).

The options `test_images` and `seed` draw a seeded test split of so many images (10,000 as in DPLC,
whose own draw depends on the version of Python's generator); the other images are the split train.
With 0 test images there is no test split. The choice depends on the keys and the seed alone, so the
database and its export give the same one. A `bedroom_val_lmdb` beside `bedroom_train_lmdb` becomes
the split val.

Rows are in the order of the keys. The three million images of a database are read in constant
memory; for exported images, the names are held in memory, about 0.15 kB each.

By default images are stored at 64×64 as PNG (the shorter side is scaled to 64, and the centre is
cut out), since models are trained and measured on exactly these pixels. `storage original` without
a size keeps the files as they are.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from shards.building.pictures import Pictures, pictures
from shards.building.sources import (
    Items,
    Outcome,
    Source,
    passed_over,
    read_each,
    stored_picture,
)
from shards.building.sources.archives import open_files
from shards.building.sources.draw import drawn
from shards.building.sources.lsun_database import (
    Entry,
    Extent,
    Picked,
    check_test_images,
    read_entries,
    scan,
)
from shards.building.writer import NewSample
from shards.errors import ShardError
from shards.info import Skipped

DEFAULT_SIZE = "64"
_IMAGES = (".webp", ".jpg", ".jpeg", ".png")
_KEY = re.compile(r"[0-9A-Za-z_-]+")
_LAYOUTS = (
    "LSUN's database such as bedroom_train_lmdb (a folder with data.mdb), of the folder that "
    "holds it, or of a folder of images exported from it"
)


class Exported(NamedTuple):
    """A block of exported images: the posix paths of their files below the root."""

    root: Path
    names: tuple[str, ...]


class File(NamedTuple):
    """A work item of a folder of exported images."""

    path: str


@dataclass(frozen=True)
class Folder:
    """The exported images of a split, in the order of their keys."""

    root: Path
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def block(self, start: int, stop: int) -> Exported:
        return Exported(self.root, tuple(self.names[start:stop]))


def lsun(
    path: Path | None,
    *,
    size: str | None = None,
    storage: str | None = None,
    test_images: int = 10_000,
    seed: int = 0,
) -> Source:
    """The source of the images; the docstring of the module describes its options.

    Raises `ShardError` when the path has neither of the two layouts.
    """
    if path is None:
        raise ShardError(f"lsun needs the path of {_LAYOUTS}")
    if size is None and storage != "original":
        size = DEFAULT_SIZE
    stored = pictures(size, storage, "png")
    database = _database(path)
    others: list[Skipped] = []
    if database is None:
        splits, content, others = _exported(path, test_images, seed)
    else:
        splits, content = _databases(database, test_images, seed)
    return Source(
        name="lsun",
        parameters={
            "size": stored.size,
            "storage": stored.storage,
            "test_images": test_images,
            "seed": seed,
            "images": {split: len(items) for split, items in splits.items()},
            "content": content,
        },
        transform=stored.transform(),
        splits=splits,
        read=partial(read, stored=stored),
        passed_over=others,
    )


def read(block: Extent | Picked | Exported, stored: Pictures) -> Iterator[Outcome]:
    """The outcomes of the items of one block, in order."""
    if isinstance(block, Exported):
        encode_file = partial(_encode_file, root=block.root, stored=stored)
        return read_each(encode_file, map(File, block.names))
    encode_entry = partial(_encode_entry, database=block.database, stored=stored)
    return read_each(encode_entry, read_entries(block))


def _encode_entry(entry: Entry, database: Path, stored: Pictures) -> NewSample:
    if _KEY.fullmatch(entry.path) is None:
        raise ShardError(f"{database} is no database of LSUN: it has the key {entry.path!r}")
    return _encode(entry.path, entry.data, f"the image {entry.path} in {database}", stored)


def _encode_file(file: File, root: Path, stored: Pictures) -> NewSample:
    data = open_files(root).read(file.path)
    return _encode(PurePosixPath(file.path).stem, data, root / file.path, stored)


def _encode(key: str, data: bytes, where: object, stored: Pictures) -> NewSample:
    picture = stored_picture(stored, data, where)
    members = {picture.ext: picture.data}
    return NewSample(
        key, members, picture.ext, picture.width, picture.height, None,
        source=key, done=picture.done,
    )  # fmt: skip


def _databases(database: Path, test_images: int, seed: int) -> tuple[dict[str, Items], str]:
    train, test, content = scan(database, test_images, seed)
    splits: dict[str, Items] = {"train": train, "test": test} if test_images else {"train": train}
    beside = database.with_name(re.sub("_train_lmdb$", "_val_lmdb", database.name))
    if beside != database and (beside / "data.mdb").is_file():
        splits["val"], _, more = scan(beside, 0, seed)
        content = hashlib.sha256(f"{content}{more}".encode()).hexdigest()
    return splits, content


def _exported(
    root: Path, test_images: int, seed: int
) -> tuple[dict[str, Items], str, list[Skipped]]:
    """The splits of exported images, a hash of their files, and what else lies there."""
    files = open_files(root)
    found = files.names()
    names = [name for name in found if name.lower().endswith(_IMAGES)]
    by_key = {PurePosixPath(name).stem: name for name in names}
    if not names:
        raise ShardError(f"{root} holds no images: give the path of {_LAYOUTS}")
    if len(by_key) < len(names):
        twice = next(n for n in names if by_key[PurePosixPath(n).stem] != n)
        raise ShardError(
            f"{root} holds {twice} and {by_key[PurePosixPath(twice).stem]}, and LSUN has one image "
            "a key: use the source `folder` for other images"
        )
    check_test_images(test_images, len(by_key), root)
    keys = sorted(by_key)
    test = {key for _, key in drawn(keys, test_images, seed)}
    splits: dict[str, Items] = {
        "train": Folder(root, [by_key[key] for key in keys if key not in test])
    }
    if test:
        splits["test"] = Folder(root, [by_key[key] for key in keys if key in test])
    others = [name for name in found if not name.lower().endswith(_IMAGES)]
    content = files.fingerprint(by_key[key] for key in keys)
    return splits, content, passed_over(root.name, others, f"images ({', '.join(_IMAGES)})")


def _database(path: Path) -> Path | None:
    """The database that the user names; None for a folder of exported images."""
    if not path.is_dir():
        if path.suffix == ".zip" and path.is_file():
            raise ShardError(f"{path} must be unzipped first: a database is read in its place")
        raise ShardError(f"{path} is no folder: give the path of {_LAYOUTS}")
    if (path / "data.mdb").is_file():
        return path
    found = sorted(file.parent for file in path.glob("*_train_lmdb/data.mdb"))
    if len(found) > 1:
        raise ShardError(
            f"{path} holds {', '.join(p.name for p in found)}: give the path of one of them"
        )
    if not found and (zipped := sorted(path.glob("*_lmdb.zip"))):
        raise ShardError(f"{zipped[0]} must be unzipped first: a database is read in its place")
    return found[0] if found else None
