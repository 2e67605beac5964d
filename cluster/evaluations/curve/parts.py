"""The parts of a curve: each finished block leaves one Parquet file behind.

The part of a measured block has a row for each image and reported temperature. The part of a
simulated block has one row for each simulated image, at the end of its path, with a bound of log Z:
a path that starts at the prior ("forward") gives the lower bound, and a path that starts at the
latents from which the images were drawn ("backward") gives the upper bound. The part of a certified
block has a row for each image and group of chains from modes.
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

# The values that a block measures for each image and reported temperature.
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
        ("kind", pa.string()),  # that of the block
        ("image", pa.int64()),  # row of the split, or number of a simulated image
        ("temperature", pa.int32()),  # index into the schedule
        ("beta", pa.float64()),
        ("log_z", pa.float64()),  # nats
        ("rate", pa.float64()),  # nats per image; not a number for backward paths
        ("distortion", pa.float64()),  # not a number for backward paths
        ("ess", pa.float64()),  # 1 ... chains
        ("acceptance", pa.float64()),  # mean acceptance since the row before
        ("resampled", pa.int32()),  # number of resamplings since the row before
        ("nonfinite", pa.int64()),  # number of non-finite proposals refused so far
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
        path: the file.
        kind: the kind of the block.
        images: the numbers of the I images.
        temperatures: the indices of the R reported temperatures.
        betas: the inverse temperatures at these indices.
        values_RIC: the values of COLUMNS, float64.
        metadata: the hashes of what the part belongs to, and the versions that made it.
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
        # One thread and one file: `read_table` takes twice the time for files as small as these.
        with pq.ParquetFile(path) as file:
            table = file.read(use_threads=False)
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
