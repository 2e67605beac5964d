"""`digits`: the 1,797 handwritten digits of 8×8 pixels inside scikit-learn; nothing is downloaded.

The order of the digits is that of `sklearn.datasets.load_digits`. The first two thirds, 1,198
digits, are the split train, and the last 599 are the split test. They are not shuffled, as in
scikit-learn's own examples, since neighbours are often by one writer. A grey value v of 0 to 16 is
stored as v·255/16, with halves rounded up (8 becomes 128). scikit-learn need not be importable,
since only its data file is read.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from shards.building.pictures import pictures
from shards.building.sources import Source
from shards.building.sources.arrays import Piece, Rows, read_rows
from shards.errors import ShardError

TRAIN, TEST = 1198, 599
_FILE = "digits.csv.gz"
_MEND = "run `pip install scikit-learn`"


def digits(path: Path | None, *, size: str | None = None, storage: str | None = None) -> Source:
    """The source of the digits.

    Raises `ShardError` when scikit-learn is not installed, and for a path, which it does not take.
    """
    if path is not None:
        raise ShardError(f"digits takes no path: they come with scikit-learn ({_MEND})")
    stored = pictures(size, storage, "png", arrays=True)
    file = _installed()
    images, labels = _read(file)
    content = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    return Source(
        name="digits",
        parameters={"size": stored.size, "storage": stored.storage, "content": content},
        transform=stored.transform(),
        splits={
            "train": Rows("train", ((_FILE, TRAIN),)),
            "test": Rows("test", ((_FILE, TEST),)),
        },
        read=partial(read_rows, partial(_load, file), stored),
        classes=[str(digit) for digit in range(10)],
    )


def _load(file: Path, piece: Piece) -> tuple[np.ndarray, np.ndarray]:
    images, labels = _kept(file)
    skipped = TRAIN if piece.split == "test" else 0
    rows = slice(skipped + piece.start, skipped + piece.stop)
    return images[rows], labels[rows]


def _installed() -> Path:
    package = find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise ShardError(f"the digits come with scikit-learn, which is not installed: {_MEND}")
    return Path(package.submodule_search_locations[0]) / "datasets" / "data" / _FILE


def _read(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """The images, uint8 [1797, 8, 8] scaled to 0..255, and the labels, int64 [1797]."""
    try:
        with gzip.open(file, "rt", encoding="ascii") as lines:
            table = np.loadtxt(lines, delimiter=",", dtype=np.int64, ndmin=2)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ShardError(f"{file} cannot be read ({error}): {_MEND} --force-reinstall") from None
    values, labels = table[:, :-1], table[:, -1]
    whole = table.shape == (TRAIN + TEST, 65) and table.min() >= 0
    if not whole or values.max() > 16 or labels.max() > 9:
        raise ShardError(
            f"{file} is not the table of {TRAIN + TEST} digits of 64 values 0 to 16 and a label: "
            f"{_MEND} --force-reinstall"
        )
    return ((values * 255 + 8) // 16).astype(np.uint8).reshape(-1, 8, 8), labels


_kept = lru_cache(maxsize=1)(_read)
