"""`celeba`: the 202,599 aligned and cropped faces of CelebA, 178×218 JPEG files.

The files are read as the data set's site ships them: `img_align_celeba.zip` (or its folder) and, in
the same folder or in the site's own folders `Img`, `Eval` and `Anno` beside it,
`list_eval_partition.txt` and `list_attr_celeba.txt`. Kaggle's copy, which has the lists as .csv and
everything in one zip, can be read as well.

Options:

- `test_images`, `seed`: In place of the official splits train, val and test, make a seeded test
  split of `test_images` images; the other images are the split train. DPLC was measured on a split
  that it does not name; use 10000, and every set built with the same seed has the same test images.
- `attributes`: Keep the 40 attributes of each face, -1 or 1 as published, as a member `json`.

By default images are stored at 64×64 as PNG: the shorter side is scaled to 64, and the centre is
cut out, which keeps the full width of the face (this is DPLC's transform, not the tight crop of
WAE). PNG is chosen because models are trained and measured on exactly these pixels. `storage
original` without a size keeps the files as they are.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from shards.building.pictures import Pictures, pictures
from shards.building.sources import Listed, Source, read_each, stored_picture
from shards.building.sources.archives import Files, open_files
from shards.building.sources.draw import drawn
from shards.building.writer import NewSample
from shards.errors import ShardError

SPLITS = ("train", "val", "test")  # the official list calls them 0, 1 and 2
DEFAULT_SIZE = "64"
_IMAGE = re.compile(r"\d{6}\.(jpg|png)")
_NAMES = ("img_align_celeba", "img_align_celeba.zip")
_PLACES = ("", "Img", "Eval", "Anno")
_OTHER_WAYS = {
    "list_eval_partition": (
        " for the official splits, or choose a seeded test split with --test-images 10000"
    ),
    "list_attr_celeba": ", or leave --attributes out",
}


class Face(NamedTuple):
    """One work item: a file of the archive, and a byte 1 (true) or 0 for each attribute."""

    path: str
    flags: bytes

    @property
    def file(self) -> str:
        return PurePosixPath(self.path).name

    @property
    def key(self) -> str:
        return PurePosixPath(self.path).stem


class List(NamedTuple):
    """One of the data set's lists: the place where it was found, and its bytes."""

    where: str
    data: bytes

    @property
    def content(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """The lines of a .txt or a .csv that are not empty, as (number, words)."""
        lines = self.data.decode("utf-8-sig", "replace").replace(",", " ").splitlines()
        return ((n, words) for n, line in enumerate(lines, start=1) if (words := line.split()))


def celeba(
    path: Path | None,
    *,
    size: str | None = None,
    storage: str | None = None,
    test_images: int | None = None,
    seed: int = 0,
    attributes: bool = False,
) -> Source:
    """The source of the faces; the docstring of the module describes its options.

    Raises `ShardError` when a file is missing.
    """
    if path is None:
        raise ShardError("celeba needs the path of img_align_celeba.zip or of the folder it is in")
    if size is None and storage != "original":
        size = DEFAULT_SIZE
    stored = pictures(size, storage, "png")
    files = open_files(_images(path))
    images = [name for name in files.names() if _IMAGE.fullmatch(PurePosixPath(name).name)]
    found = {PurePosixPath(name).stem: name for name in images}
    if len(found) < len(images):
        raise ShardError(f"{files.path} holds several copies of an image: give the path of one")
    if not found:
        raise ShardError(
            f"{files.path} holds no images 000001.jpg, 000002.jpg, ...: give the path of CelebA's "
            "img_align_celeba.zip, of its folder img_align_celeba, or of the folder that holds one"
        )
    content = {"images": files.fingerprint(found.values())}
    names: list[str] = []
    flags: dict[str, bytes] = {}
    if attributes:
        listed = _list(path, files, "list_attr_celeba")
        names, flags = _attributes(listed, files, found)
        content["attributes"] = listed.content
    if test_images is None:
        partition = _list(path, files, "list_eval_partition")
        splits = _official(partition, files, found)
        content["partition"] = partition.content
    else:
        splits = _custom(found, test_images, seed)
    return Source(
        name="celeba",
        parameters={
            "size": stored.size,
            "storage": stored.storage,
            **({} if test_images is None else {"test_images": test_images, "seed": seed}),
            "attributes": attributes,
            "images": {split: len(stems) for split, stems in splits.items()},
            "content": content,
        },
        transform=stored.transform(),
        splits={
            split: Listed([Face(found[stem], flags.get(stem, b"")) for stem in stems])
            for split, stems in splits.items()
        },
        read=partial(
            read_each, partial(encode, root=files.path, stored=stored, names=tuple(names))
        ),
    )


def encode(face: Face, root: Path, stored: Pictures, names: tuple[str, ...]) -> NewSample:
    """Read one face; raises a `ShardError` that names the file when it is damaged."""
    data = open_files(root).read(face.path)
    picture = stored_picture(stored, data, f"{face.path} in {root}")
    members = {picture.ext: picture.data}
    if names:
        values = {name: 1 if flag else -1 for name, flag in zip(names, face.flags, strict=True)}
        members["json"] = json.dumps({"attributes": values}, separators=(",", ":")).encode()
    return NewSample(
        face.key, members, picture.ext, picture.width, picture.height, None,
        source=face.file, done=picture.done,
    )  # fmt: skip


def _images(path: Path) -> Path:
    """The archive or the folder of the images, for the path that the user names."""
    if not path.is_dir():
        return path
    inside = (path / place / name for place in _PLACES for name in _NAMES)
    return next((candidate for candidate in inside if candidate.exists()), path)


def _official(listed: List, files: Files, found: Mapping[str, str]) -> dict[str, list[str]]:
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    for number, (name, *values) in listed.rows():
        if values == ["partition"]:  # the header of a .csv
            continue
        if len(values) != 1 or values[0] not in ("0", "1", "2"):
            raise ShardError(
                f"{listed.where}, line {number}: expected an image and its split 0, 1 or 2"
            )
        splits[SPLITS[int(values[0])]].append(PurePosixPath(name).stem)
    _same(listed.where, [stem for stems in splits.values() for stem in stems], files, found)
    return {split: sorted(stems) for split, stems in splits.items() if stems}


def _custom(found: Mapping[str, str], test_images: int, seed: int) -> dict[str, list[str]]:
    if not 1 <= test_images < len(found):
        raise ShardError(
            f"a test split of {test_images} images out of {len(found)} is not possible: choose 1 "
            f"to {len(found) - 1}"
        )
    stems = sorted(found)
    test = [stem for _, stem in drawn(stems, test_images, seed)]
    held = set(test)
    return {"train": [stem for stem in stems if stem not in held], "test": test}


def _attributes(
    listed: List, files: Files, found: Mapping[str, str]
) -> tuple[list[str], dict[str, bytes]]:
    """The names of the attributes, and the attributes of each image."""
    rows = listed.rows()
    header = next((words for _, words in rows if len(words) > 1), [])  # skips a count above it
    names = header[1:] if header[:1] == ["image_id"] else header
    value = {"1": 1, "-1": 0}
    flags = {}
    for number, (name, *values) in rows:
        try:
            flags[PurePosixPath(name).stem] = bytes([value[v] for v in values])
        except KeyError:
            raise ShardError(
                f"{listed.where}, line {number}: an attribute is neither 1 nor -1"
            ) from None
        if len(values) != len(names):
            raise ShardError(
                f"{listed.where}, line {number}: {len(values)} values for {len(names)} attributes"
            )
    _same(listed.where, list(flags), files, found)
    return names, flags


def _list(path: Path, files: Files, stem: str) -> List:
    """Find a list in the images' archive or near it.

    Raises a `ShardError` that names the option which makes the list unnecessary.
    """
    wanted = (f"{stem}.txt", f"{stem}.csv")
    for name in () if files.path.is_dir() else files.names():
        if PurePosixPath(name).name in wanted:
            return List(f"{name} in {files.path}", files.read(name))
    # The folders above are searched as well, since the path may be the folder of the images itself,
    # or the site's folder `Img`.
    for base in (path, *path.absolute().parents[:2]):
        for file in (base / place / name for place in _PLACES for name in wanted):
            if file.is_file():
                return List(str(file), file.read_bytes())
    raise ShardError(f"there is no {stem}.txt beside {files.path}: put it there{_OTHER_WAYS[stem]}")


def _same(where: str, listed: list[str], files: Files, found: Mapping[str, str]) -> None:
    """Raise `ShardError` unless a list names exactly the images that were found."""
    if lost := sorted(set(listed) - found.keys()):
        raise ShardError(
            f"{files.path} lacks {len(lost)} of the {len(listed)} images of {where}, such as "
            f"{lost[0]}.jpg: unpack or download it again"
        )
    if unknown := sorted(found.keys() - set(listed)):
        raise ShardError(
            f"{where} lacks {len(unknown)} images of {files.path}, such as {unknown[0]}"
        )
