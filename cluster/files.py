"""Files that are whole or do not exist, and locks on directories."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

from cluster.locks import lock_holder, locked

__all__ = ["lock_holder", "locked", "read_json", "write_bytes", "write_json", "write_text"]


def write_bytes(path: Path, data: bytes, durable: bool = True) -> None:
    """Replace a file in one step. If that fails, nothing is left behind.

    Args:
        path: the file, whose directory is made if need be.
        data: the whole content.
        durable: whether to wait until the file is on the disk, which files for display do not need.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The umask says who else may read and write it, which it does not for files of `tempfile`.
    with path.with_name(f".{path.name}.{secrets.token_hex(4)}").open("xb") as file:
        try:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """Replace a text file (UTF-8) in one step."""
    write_bytes(path, bytes(text, "utf-8"))


def write_json(path: Path, value: Any, durable: bool = True) -> None:
    """Replace a JSON file in one step."""
    write_bytes(path, (json.dumps(value, indent=1) + "\n").encode(), durable)


def read_json(path: Path) -> Any | None:
    """The content of a JSON file, or None if there is no such file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
