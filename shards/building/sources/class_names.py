"""The names of the classes of label maps: of known data sets, or from a file."""

from __future__ import annotations

from pathlib import Path

from shards.building.sources import ade20k, cityscapes
from shards.errors import ShardError

KNOWN = {"cityscapes": cityscapes.CLASSES, "ade20k": [ade20k.OTHER, *ade20k.CLASSES]}
MAX_CLASSES = 1 << 16


def class_names(source: str) -> list[str]:
    """The names of the ids 0, 1, ...

    Args:
        source: `cityscapes` (34 classes by label id), `ade20k` (151, where 0 is other), or the
            path of a text file with one name a line, in the order of the ids.

    Raises:
        ShardError: There is no such list, or it holds no names or equal ones.
    """
    if source in KNOWN:
        return list(KNOWN[source])
    try:
        lines = Path(source).read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ShardError(
            f"the class names {source} cannot be read ({reason}): give a text file with one name a"
            f" line, or one of {', '.join(KNOWN)}"
        ) from None
    while lines and not lines[-1].strip():
        lines.pop()
    names = [line.strip() for line in lines]
    if not names or len(names) > MAX_CLASSES:
        raise ShardError(f"{source} has {len(names)} names, and a map has 1 to {MAX_CLASSES} ids")
    if "" in names:
        raise ShardError(f"line {names.index('') + 1} of {source} has no name")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ShardError(f"{source} names {twice!r} twice")
    return names
