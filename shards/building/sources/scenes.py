"""Images with maps of their pixels, such as labels, as in `cityscapes` and `ade20k`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from shards.building.pictures import Pictures
from shards.building.sources import unreadable
from shards.building.sources.archives import open_files
from shards.building.writer import NewSample
from shards.errors import ShardError
from shards.reading import decode
from shards.reading.maps import map_pixels


class Scene(NamedTuple):
    """One work item: the name of an image among its files, and (member, name) for each map."""

    path: str
    key: str
    maps: tuple[tuple[str, str], ...] = ()


def encode(
    scene: Scene,
    images: Path,
    maps: Mapping[str, Path],
    stored: Pictures,
    limits: Mapping[str, int] | None = None,
) -> NewSample:
    """Read an image and its maps.

    `maps` has the files of each member, and `limits` the number of ids that a member may have.

    If the image keeps its original bytes, so do the maps; otherwise the maps are given the geometry
    of the image. Raises `ShardError` when a file is damaged, or a map and the image differ in size.
    """
    data = open_files(images).read(scene.path)
    where = f"{scene.path} in {images}"
    try:
        picture = stored.encode(data)
        if scene.maps and stored.storage != "original" and decode.is_turned(data):
            raise ValueError("its orientation tag turns it away from its maps")
        size = decode.image_size(data, stored.max_pixels)
    except ValueError as error:
        raise unreadable(where, error) from None
    members = {picture.ext: picture.data}
    for member, name in scene.maps:
        root, most = maps[member], (limits or {}).get(member)
        members[member] = _map(open_files(root).read(name), f"{name} in {root}", size, stored, most)
    return NewSample(
        scene.key, members, picture.ext, picture.width, picture.height, None,
        source=scene.path, done=picture.done,
    )  # fmt: skip


def _map(
    data: bytes, where: str, size: tuple[int, int], stored: Pictures, most: int | None
) -> bytes:
    try:
        pixels = map_pixels(data, stored.max_pixels)
    except ValueError as error:
        raise unreadable(where, error) from None
    if pixels.shape != size[::-1]:
        raise ShardError(
            f"{where} has {pixels.shape[1]}x{pixels.shape[0]} pixels and its image "
            f"{size[0]}x{size[1]}: both must come from the same release"
        )
    if most is not None and (largest := int(pixels.max())) >= most:
        raise ShardError(
            f"{where} has the id {largest}, but only 0 to {most - 1} have class names: name all ids"
            " that the maps have, or leave the names out"
        )
    return data if stored.storage == "original" else stored.encode_map(pixels)
