"""The regions of an image that a file of selective compression keeps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gencomp.errors import InputError
from gencomp.systems.gan_compression.recipe import LabelsSection
from gencomp.systems.gan_compression.writing import MASK, CodecSection, class_ids


def kept_pixels(
    settings: CodecSection,
    labels: LabelsSection,
    classes_HW: np.ndarray,
    instances_HW: np.ndarray | None,
    mask_HW: np.ndarray | None,
) -> np.ndarray:
    """The pixels of an image that are kept, bool [H, W].

    Args:
        settings: what is kept.
        labels: the classes and their names.
        classes_HW: the class of each pixel.
        instances_HW: the instance of each pixel, or None.
        mask_HW: the mask, or None.

    Raises:
        InputError: nothing is said of what is kept, or what is said does not fit the image.
    """
    said = settings.keep, settings.keep_instances, settings.keep_box, mask_HW
    if all(one is None for one in said):
        raise InputError(
            "say which regions to keep: --codec.keep CLASSES, --codec.keep_instances"
            f" IDS, --codec.keep_box X,Y,WIDTH,HEIGHT, or the map {MASK}"
        )
    kept_HW = np.zeros(classes_HW.shape, bool)
    if settings.keep is not None:
        kept_HW |= np.isin(classes_HW, class_ids(settings.keep, labels.classes, labels.class_names))
    if settings.keep_instances is not None:
        kept_HW |= _of_instances(settings.keep_instances, labels, instances_HW)
    if settings.keep_box is not None:
        left, top, width, height = settings.keep_box
        rows, columns = classes_HW.shape
        if left >= columns or top >= rows:
            raise InputError(
                f"codec.keep_box begins at {left},{top}, but the image has {columns}×{rows} pixels"
                " (width × height)"
            )
        kept_HW[top : top + height, left : left + width] = True
    if mask_HW is not None:
        kept_HW |= mask_HW != 0
    return kept_HW


def _of_instances(
    ids: Sequence[int], labels: LabelsSection, instances_HW: np.ndarray | None
) -> np.ndarray:
    assert instances_HW is not None  # the recipe says so
    if missing := [one for one in ids if not (instances_HW == one).any()]:
        raise InputError(
            f"codec.keep_instances names {', '.join(map(str, missing))}, which the map"
            f" {labels.instances} of the image does not have"
        )
    return np.isin(instances_HW, ids)
