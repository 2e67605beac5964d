"""What W&B's own files of an offline run hold.

A .wandb file is a log in LevelDB's format: blocks of 32 KiB of chunks, each with a checksum, a
length and a kind, after a header of 7 bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_HEADER, _BLOCK = 7, 32768
_FULL, _LAST = 1, 4


def history(file: Path) -> Iterator[dict[str, Any]]:
    """The rows that were logged, as far as the file is whole.

    W&B's own step is `_step`; the file of an image under the name X is `X/path`.
    """
    for record in records(file):
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            yield {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}


def records(file: Path) -> Iterator[Any]:
    """The records of a file, as far as it is whole."""
    from wandb.proto import wandb_internal_pb2

    data, at, record = file.read_bytes(), _HEADER, b""
    while at + _HEADER <= len(data):
        room = _BLOCK - at % _BLOCK
        if room < _HEADER:  # the rest of a block that no chunk fits into
            at += room
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        end = at + _HEADER + length
        if kind == 0 or end > len(data):
            return
        record += data[at + _HEADER : end]
        at = end
        if kind in (_FULL, _LAST):
            yield wandb_internal_pb2.Record.FromString(record)
            record = b""
