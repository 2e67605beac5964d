"""Files that are whole or not there, and locks on directories."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from cluster.locks import lock_holder, locked

__all__ = ["lock_holder", "locked", "read_json", "write_bytes", "write_json", "write_text"]


def write_bytes(path: Path, data: bytes, durable: bool = True) -> None:
    """Replace a file in one step; when that fails, nothing is left behind.

    Args:
        path: its directory is made if need be.
        data: the whole content.
        durable: wait until it is on the disk; not needed for what is only looked at.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        try:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """Replace a text file (UTF-8) in one step."""
    write_bytes(path, bytes(text, "utf-8"))


def write_json(path: Path, value: Any, durable: bool = True) -> None:
    """Replace a file of JSON in one step."""
    write_bytes(path, (json.dumps(value, indent=1) + "\n").encode(), durable)


def read_json(path: Path) -> Any | None:
    """The content of a file of JSON, or None where there is no such file."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
