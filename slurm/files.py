"""JSON files that are whole or not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cluster.files import write_bytes


def write_json(path: Path, value: Any, durable: bool = True) -> None:
    write_bytes(path, (json.dumps(value, indent=1) + "\n").encode(), durable)


def read_json(path: Path) -> Any | None:
    """The content, or None where there is no such file."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
