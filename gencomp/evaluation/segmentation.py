"""Mean intersection over union of what a network sees in images and of the images' label maps.

Over all images together, a class k has the intersection I (pixels that are labelled k and seen as
k) and the union U (pixels that are labelled or seen as k); its value is I/U, and the mean is over
the classes that are labelled somewhere. Pixels whose label is beyond the classes of the network,
such as void, do not count. Short of perfect labels, a network does not reach 1 on the originals
either, so reconstructions are held against them.

The interval is that of the mean of the images' influences. With N images, image i moves the I/U of
a class by N·(I_i − I/U · U_i)/U.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

INTERSECTION, UNION, LABELLED = range(3)


class MeanIou(NamedTuple):
    """The mean intersection over union.

    Attributes:
        value: the value.
        influence_N: the influence of each image on it, float64; its mean is 0.
        classes: the number of classes that are labelled somewhere.
    """

    value: float
    influence_N: np.ndarray
    classes: int


def counts(seen_BHW: Tensor, labels_BHW: Tensor, classes: int) -> Tensor:
    """Intersection, union and labelled pixels of each class in each image, int64 [B, 3, K].

    Args:
        seen_BHW: the classes that the network sees, 0..K−1.
        labels_BHW: the labels; those of K and more, and below 0, do not count.
        classes: the number K of classes.
    """
    found = []
    for seen_HW, labels_HW in zip(seen_BHW, labels_BHW, strict=True):
        valid_HW = (labels_HW >= 0) & (labels_HW < classes)
        seen_P, labels_P = seen_HW[valid_HW].long(), labels_HW[valid_HW].long()
        both, seen, labelled = (
            torch.bincount(one_P, minlength=classes)
            for one_P in (labels_P[seen_P == labels_P], seen_P, labels_P)
        )
        found.append(torch.stack([both, seen + labelled - both, labelled]))
    return torch.stack(found).cpu() if found else torch.zeros(0, 3, classes, dtype=torch.int64)


def mean_iou(counts_N3K: np.ndarray) -> MeanIou | None:
    """The mean intersection over union of N images; None if none of them has a label that counts.

    Args:
        counts_N3K: what `counts` gives for each image.
    """
    totals_3K = counts_N3K.sum(0).astype(np.float64)
    there_K = totals_3K[LABELLED] > 0
    if not there_K.any():
        return None
    of_images_N3K = counts_N3K[:, :, there_K].astype(np.float64)
    union_K = totals_3K[UNION, there_K]
    value_K = totals_3K[INTERSECTION, there_K] / union_K
    moved_NK = of_images_N3K[:, INTERSECTION] - value_K * of_images_N3K[:, UNION]
    influence_N = (len(counts_N3K) * moved_NK / union_K).mean(1)
    return MeanIou(float(value_K.mean()), influence_N, int(there_K.sum()))
