"""Files decode in a fresh process, with another number of threads, and with oneDNN off and on."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.gencomp.other_processes import printed
from tests.gencomp.systems.irec import codec_cases
from tests.gencomp.systems.irec.codec_cases import KINDS, codec

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
    """A folder with the systems and the streams of 100 crops, and the hashes of what they show."""

    folder: Path
    hashes: list[str]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("streams")
    codec_cases.save(folder / "systems")
    streams, hashes = [], []
    for number, kind in enumerate(KINDS):
        for picture in codec_cases.crops(20, 4, 32, seed=number):
            streams.append((kind, codec(kind).compress(picture)))
            shown = codec(kind).reconstruct(picture)
            assert kind in codec_cases.LOSSY or np.array_equal(shown, picture.image_HWC)
            hashes.append(hashlib.sha256(shown.tobytes()).hexdigest())
    (folder / "streams").write_bytes(pickle.dumps(streams))
    return Written(folder, hashes)


@pytest.mark.parametrize(("threads", "dnn"), [(1, "off"), (2, "on")])
def test_100_crops(written: Written, threads: int, dnn: str) -> None:
    assert printed(READER, written.folder, threads, dnn) == written.hashes
