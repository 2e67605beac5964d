"""The regions of an image that a file of selective compression keeps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gencomp.errors import InputError
from gencomp.systems.gan_compression.recipe import LabelsSection
from gencomp.systems.gan_compression.writing import CodecSection

MASK = "mask"  # the map of an image whose pixels are kept where it is not 0


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
            "it is not said which regions are kept: --codec.keep CLASSES, --codec.keep_instances"
            f" IDS, --codec.keep_box X,Y,WIDTH,HEIGHT, or the map {MASK}"
        )
    kept_HW = np.zeros(classes_HW.shape, bool)
    if settings.keep is not None:
        kept_HW |= np.isin(classes_HW, class_ids(settings.keep, labels))
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


def class_ids(keep: Sequence[int | str], labels: LabelsSection) -> list[int]:
    """The ids of classes that are given as ids or by name.

    Raises:
        InputError: there is no such class.
    """
    names = labels.class_names
    found = []
    for one in keep:
        text = str(one)
        if text.isdecimal() and int(text) < labels.classes:
            found.append(int(text))
        elif text in names:
            found.append(names.index(text))
        else:
            known = (
                f" or one of {', '.join(names)}" if names else ", as labels.class_names is empty"
            )
            raise InputError(
                f"codec.keep names the class {text!r}, but a class is a number from 0 to"
                f" {labels.classes - 1}{known}"
            )
    return found


def _of_instances(
    ids: Sequence[int], labels: LabelsSection, instances_HW: np.ndarray | None
) -> np.ndarray:
    if instances_HW is None:
        raise InputError(
            "codec.keep_instances needs a map of instances, but labels.instances names none"
        )
    if missing := [one for one in ids if not (instances_HW == one).any()]:
        raise InputError(
            f"codec.keep_instances names {', '.join(map(str, missing))}, which the map"
            f" {labels.instances} of the image does not have"
        )
    return np.isin(instances_HW, ids)
