"""Parts: what a finished block leaves behind, one Parquet file each.

The rows of a measured block are its images at the reported temperatures. Those of a simulated block
are its simulated images at the end of their path, one each, with a bound of log Z: the lower one of
a path from the prior ("forward"), the upper one of a path from the latents that the images were
drawn from ("backward").
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from cluster.files import write_bytes
from gencomp.errors import InputError

# What a block measures for each image and reported temperature.
COLUMNS = (
    "log_z",
    "rate",
    "distortion",
    "ess",
    "acceptance",
    "resampled",
    "nonfinite",
    "log_z_integral",
)
SCHEMA = pa.schema(
    [
        ("kind", pa.string()),  # measure, forward or backward
        ("image", pa.int64()),  # row of the split, or number of a simulated image
        ("temperature", pa.int32()),  # index into the schedule
        ("beta", pa.float64()),
        ("log_z", pa.float64()),  # nats
        ("rate", pa.float64()),  # nats per image; not a number for backward paths
        ("distortion", pa.float64()),  # not a number for backward paths
        ("ess", pa.float64()),  # 1 ... chains
        ("acceptance", pa.float64()),  # mean since the row before
        ("resampled", pa.int32()),  # how often since the row before
        ("nonfinite", pa.int64()),  # proposals refused so far
        ("log_z_integral", pa.float64()),  # nats, by thermodynamic integration
    ]
)


def write(
    path: Path,
    kind: str,
    images: Sequence[int],
    temperatures: Sequence[int],
    betas: Sequence[float],
    values_RIC: Tensor,
    metadata: Mapping[str, Any],
) -> None:
    """Write a part, whole or not at all.

    Args:
        path: of the file.
        kind: of the block.
        images: I numbers.
        temperatures: R indices of the reported temperatures.
        betas: there.
        values_RIC: float64, of COLUMNS.
        metadata: what the part belongs to and was made with.
    """
    points = len(temperatures)
    values = {name: values_RIC[..., c].T.flatten().numpy() for c, name in enumerate(COLUMNS)}
    table = pa.table(
        {
            "kind": [kind] * (points * len(images)),
            "image": np.repeat(np.array(images, dtype=np.int64), points),
            "temperature": np.tile(np.array(temperatures), len(images)),
            "beta": np.tile(np.array(betas), len(images)),
            **values,
        }
    )
    said = json.dumps({**metadata, "torch": torch.__version__})
    table = table.select(SCHEMA.names).cast(SCHEMA).replace_schema_metadata({"gencomp": said})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    write_bytes(path, buffer.getvalue())


def read(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    """A part and its metadata.

    Raises:
        InputError: the file is not a part.
    """
    try:
        table = pq.read_table(path, partitioning=None)
        metadata = json.loads(table.schema.metadata[b"gencomp"])
        if not table.schema.equals(SCHEMA):
            raise ValueError("its columns are other ones")
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path} is not a part of a curve ({reason}); remove it and "
            "run `gencomp slurm ais` again"
        ) from None
    return table, metadata
