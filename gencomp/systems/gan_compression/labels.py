"""Label maps as planes, and the regions of an image that selective compression keeps."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from gencomp.draws import Draws
from gencomp.errors import InputError
from gencomp.systems.gan_compression.recipe import LabelsSection

# The share of instances that training keeps.
_KEPT = 0.25
# An image's instances beyond so many share their random numbers.
_KEYS = 4096


def planes(
    maps: Mapping[str, Tensor], settings: LabelsSection, dtype: torch.dtype = torch.float32
) -> Tensor:
    """The planes [B, K, H, W] that networks see of maps: one of each class, then boundaries.

    The planes of the classes sum to 1 at every pixel.

    Args:
        maps: the maps by name, integers [B, H, W].
        settings: the names and the number of classes.
        dtype: the type of the planes.

    Raises:
        InputError: a map is missing.
    """
    classes_BHW = classes(maps, settings)
    numbers_K11 = torch.arange(settings.classes, device=classes_BHW.device)[:, None, None]
    planes_BKHW = (classes_BHW[:, None] == numbers_K11).to(dtype)
    if settings.instances is None:
        return planes_BKHW
    edges_B1HW = boundaries(_map(maps, settings.instances))[:, None].to(dtype)
    return torch.cat([planes_BKHW, edges_B1HW], 1)


def classes(maps: Mapping[str, Tensor], settings: LabelsSection) -> Tensor:
    """The class of each pixel, int64 [B, H, W]; an id beyond the last class is the last class.

    Raises:
        InputError: the map is missing.
    """
    return _map(maps, settings.map).long().clamp(0, settings.classes - 1)


def boundaries(ids_BHW: Tensor) -> Tensor:
    """Whether a pixel has one of another instance above, below, left or right of it, [B, H, W]."""
    found_BHW = torch.zeros(ids_BHW.shape, dtype=torch.bool, device=ids_BHW.device)
    rows = ids_BHW[:, 1:] != ids_BHW[:, :-1]
    columns = ids_BHW[:, :, 1:] != ids_BHW[:, :, :-1]
    found_BHW[:, 1:] |= rows
    found_BHW[:, :-1] |= rows
    found_BHW[:, :, 1:] |= columns
    found_BHW[:, :, :-1] |= columns
    return found_BHW


def cells(kept_BHW: Tensor, stride: int) -> Tensor:
    """The latents that are kept: those with a pixel of a kept region, float32 [B, 1, H/s, W/s].

    Args:
        kept_BHW: the pixels of kept regions, of sides that are multiples of s.
        stride: the number s of pixels of a latent in either direction.
    """
    return F.max_pool2d(kept_BHW[:, None].float(), stride)


def pixels_of_cells(cells_B1HW: Tensor, stride: int) -> Tensor:
    """The pixels of latents, [B, 1, H·s, W·s]."""
    return cells_B1HW.repeat_interleave(stride, 2).repeat_interleave(stride, 3)


def drawn_regions(
    maps: Mapping[str, Tensor], settings: LabelsSection, draws: Draws, height: int, width: int
) -> Tensor:
    """The regions that training keeps of each image, bool [B, height, width].

    Raises:
        InputError: the map of the instances is missing.
    """
    if settings.kept == "box":
        return _boxes(draws.uniform("box", 0, 1, 4), height, width)
    ids_BHW = _map(maps, settings.instances or settings.map)
    keys_BK = draws.uniform("instances", 0, 1, _KEYS)
    kept = [_instances(ids_HW, keys_K) for ids_HW, keys_K in zip(ids_BHW, keys_BK, strict=True)]
    return torch.stack(kept) if kept else torch.zeros_like(ids_BHW, dtype=torch.bool)


def _boxes(units_B4: Tensor, height: int, width: int) -> Tensor:
    """One rectangle in each image, of any size from 1 pixel and at any place, both even."""
    boxes = []
    for axis, size in enumerate((height, width)):
        unit_B, where_B = units_B4[:, 2 * axis], units_B4[:, 2 * axis + 1]
        side_B = 1 + (unit_B * size).long().clamp(max=size - 1)
        first_B = (where_B * (size - side_B + 1)).long().minimum(size - side_B)
        place = torch.arange(size, device=units_B4.device)
        boxes.append((place >= first_B[:, None]) & (place < (first_B + side_B)[:, None]))
    return boxes[0][:, :, None] & boxes[1][:, None]


def _instances(ids_HW: Tensor, keys_K: Tensor) -> Tensor:
    """The pixels of a quarter of an image's instances, at least one."""
    found, inverse_HW = torch.unique(ids_HW, return_inverse=True)
    count = len(found)
    keys = keys_K[torch.arange(count, device=keys_K.device) % _KEYS]
    kept = torch.zeros(count, dtype=torch.bool, device=ids_HW.device)
    kept[keys.argsort(stable=True)[: max(1, round(_KEPT * count))]] = True
    return kept[inverse_HW]


def _map(maps: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in maps:
        raise InputError(f"the images have no map {name}; they have {', '.join(maps) or 'none'}")
    return maps[name]
