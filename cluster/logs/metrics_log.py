"""The metrics log of a run as its readers see it: each step once, as the newest attempt logged it.

Each row names its `attempt`, a number that grows with every start of the workers. A host that was
cut off may write a row when the run has long gone on elsewhere; such a row stays in the file until
the next attempt begins, and no reader here gives it. Logs of earlier versions have no attempts.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from cluster.files import write_text
from cluster.logs import json_lines

Row = dict[str, Any]
# The place of a row in a log: the evaluation of a step (1) follows the row of training (0).
Place = tuple[float, int]

STAMP = ("step", "attempt", "epoch", "time")  # what a row says beside its metrics

# A row has its time and attempt in its first bytes, and its last values in the last ones.
_REMEMBERED = 512

# So many rows may stand late beside each other; a writer that lost its run writes one or two.
_LATE = 8


def read(path: Path) -> list[Row]:
    """All rows, oldest first."""
    return _oldest_first(json_lines.read(path))


def newest_first(path: Path) -> Iterator[Row]:
    """The rows from the last one backwards; little more of the file is read than is needed."""
    return _standing(json_lines.newest_first(path))


class Follower:
    """Gives the rows that are written from now on, each once.

    A row of a newer attempt takes the place of all rows of its step and of later ones. The log may
    have been rewound by a new attempt, and have grown again, between two calls.

    Args:
        skip: whether rows that stand in the log already are left out.
    """

    def __init__(self, path: Path, skip: bool = False) -> None:
        self._path = path
        self._offset, self._before = 0, b""  # where to go on, and the last bytes before
        self._last: tuple[int, Place] | None = None  # the attempt and place of the last row
        if skip:
            self()

    def __call__(self) -> list[Row]:
        """The rows since the last call."""
        rewound = self._was_rewound()
        rows, self._offset = json_lines.follow(self._path, 0 if rewound else self._offset)
        self._before = self._bytes_before(self._offset)
        found = []
        for row in rows:
            here = _attempt(row), place(row)
            if self._last is None or (here > self._last if rewound else here[0] >= self._last[0]):
                self._last = here
                found.append(row)
        return found

    def _was_rewound(self) -> bool:
        return self._bytes_before(self._offset) != self._before

    def _bytes_before(self, offset: int) -> bytes:
        """Some of the last row before a place, the time at which it was written among them."""
        start = max(offset - _REMEMBERED, 0)
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(start)
            return file.read(offset - start)
        return b""


def place(row: Mapping[str, Any]) -> Place:
    """The place of a row in its log."""
    return row.get("step", 0), int("samples_per_second" not in row)


def begin(path: Path, step: int, starts: int) -> int:
    """Drop the rows after a step, which a resumed run writes again.

    Args:
        path: the metrics log.
        step: the step after which the run goes on.
        starts: the number of times that the workers were started, this time included.

    Returns:
        The number of the attempt that begins now.
    """
    rows = json_lines.read(path)
    attempt = max([starts, *(1 + _attempt(row) for row in rows)])
    kept = [row for row in _oldest_first(rows) if row["step"] <= step]
    write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
    return attempt


def _oldest_first(rows: Sequence[Row]) -> list[Row]:
    return list(_standing(reversed(rows)))[::-1]


def _standing(rows: Iterable[Row]) -> Iterator[Row]:
    """The rows, newest first, without those that an earlier attempt wrote late or has lost."""
    behind: deque[Row] = deque()  # the rows before the present one
    rows = iter(rows)
    last: Row | None = None
    begun: Place | None = None  # where the attempt after that of the present row began
    while True:
        behind.extend(islice(rows, 1 + _LATE - len(behind)))
        if not behind:
            return
        row = behind.popleft()
        if any(_attempt(row) < _attempt(other) for other in behind):
            continue
        if last is not None and _attempt(row) < _attempt(last):
            begun = place(last)
        if begun is None or place(row) < begun:
            yield row
            last = row


def _attempt(row: Mapping[str, Any]) -> int:
    return int(row.get("attempt", 0))
