"""Files of JSON lines that one process appends and any process may read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_BLOCK = 1 << 16


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Append one row in one write. Values that are not finite become null."""
    finite = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(finite) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """All whole rows; a last line cut short by a crash is ignored."""
    return _whole_rows(path.read_bytes()) if path.exists() else []


def newest_first(path: Path, block_bytes: int = _BLOCK) -> Iterator[dict[str, Any]]:
    """The whole rows from the last one backwards; no more of the file is read than is needed."""
    if not path.exists():
        return
    with path.open("rb") as file:
        start, rest = file.seek(0, 2), b""
        while start:
            stop, start = start, max(start - block_bytes, 0)
            file.seek(start)
            block = file.read(stop - start) + rest
            if start:  # the first line may have begun before
                rest, _, block = block.partition(b"\n")
            yield from reversed(_whole_rows(block))


def end(path: Path) -> int:
    """The size of the log in bytes, 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


def follow(path: Path, offset: int) -> tuple[list[dict[str, Any]], int]:
    """The whole rows that were written after a byte offset, and the offset after them.

    A log that has become shorter was rewound by workers that were started again, so reading goes on
    at its end. If it has grown again since, it is read from the next whole line.
    """
    if end(path) <= offset:
        return [], end(path)
    with path.open("rb") as file:
        file.seek(offset)
        whole, newline, _ = file.read().rpartition(b"\n")
    return _whole_rows(whole), offset + len(whole) + len(newline)


def _whole_rows(text: bytes) -> list[dict[str, Any]]:
    rows = []
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        # The rest of a line that was cut off may be a number or a string.
        if isinstance(row, dict):
            rows.append(row)
    return rows
