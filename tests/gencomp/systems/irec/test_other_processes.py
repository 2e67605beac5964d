"""Files decode in a fresh process, with another number of threads, and with oneDNN off and on."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.gencomp.other_processes import printed
from tests.gencomp.systems.irec import codec_cases
from tests.gencomp.systems.irec.codec_cases import KINDS, LOSSLESS, codec

# The process prints the hashes of what it shows.
READER = """
import hashlib, pickle, sys, torch
from pathlib import Path
from tests.gencomp.systems.irec import codec_cases
folder = Path(sys.argv[1])
codec_cases.load(folder / "systems")
for kind, one in pickle.loads((folder / "streams").read_bytes()):
    print(hashlib.sha256(codec_cases.codec(kind).decompress(one).tobytes()).hexdigest())
"""


class Written(NamedTuple):
    """A folder with the systems and the streams of crops, and the hashes of what they show."""

    folder: Path
    hashes: list[str]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("streams")
    codec_cases.save(folder / "systems")
    streams, hashes = [], []
    for number, kind in enumerate(KINDS):
        for picture in codec_cases.crops(50 if kind in LOSSLESS else 20, 4, 32, seed=number):
            streams.append((kind, codec(kind).compress(picture)))
            exact = kind in LOSSLESS
            shown = picture.image_HWC if exact else codec(kind).reconstruct(picture)
            hashes.append(hashlib.sha256(shown.tobytes()).hexdigest())
    (folder / "streams").write_bytes(pickle.dumps(streams))
    return Written(folder, hashes)


@pytest.mark.parametrize(
    ("threads", "dnn"),
    [
        (1, "off"),
        (2, "on"),
        pytest.param(1, "on", marks=pytest.mark.slow),
        pytest.param(2, "off", marks=pytest.mark.slow),
    ],
)
def test_crops(written: Written, threads: int, dnn: str) -> None:
    """100 without loss, 50 by each coder, which come back exactly, and 20 of each lossy kind."""
    assert len(written.hashes) == 2 * 50 + 3 * 20
    assert printed(READER, written.folder, threads, dnn) == written.hashes
