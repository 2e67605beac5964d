"""Files decode in a fresh process, with another number of threads, and with oneDNN off and on."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.gencomp.systems.irec import codec_cases
from tests.gencomp.systems.irec.codec_cases import KINDS, codec

ROOT = Path(__file__).resolve().parents[4]
# The process builds the same small system, and writes the hashes of what it shows.
READER = """
import hashlib, pickle, sys, torch
torch.set_num_threads(int(sys.argv[2]))
torch.backends.mkldnn.enabled = sys.argv[3] == "on"
from tests.gencomp.systems.irec.codec_cases import codec
streams = pickle.load(open(sys.argv[1], "rb"))
for kind, one in streams:
    print(hashlib.sha256(codec(kind).decompress(one).tobytes()).hexdigest())
"""


def hashes(streams: list[tuple[str, bytes]], folder: Path, threads: int, dnn: str) -> list[str]:
    (folder / "streams").write_bytes(pickle.dumps(streams))
    done = subprocess.run(
        [sys.executable, "-c", READER, str(folder / "streams"), str(threads), dnn],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


@pytest.mark.parametrize(("threads", "dnn"), [(1, "off"), (2, "on")])
def test_crops(tmp_path: Path, threads: int, dnn: str) -> None:
    """100 random crops, 20 of each kind; lossless ones are the very images."""
    import hashlib

    streams, expected = [], []
    for number, kind in enumerate(KINDS):
        for picture in codec_cases.crops(20, 4, 32, seed=number):
            streams.append((kind, codec(kind).compress(picture)))
            shown = codec(kind).reconstruct(picture)
            assert kind in codec_cases.LOSSY or np.array_equal(shown, picture.image_HWC)
            expected.append(hashlib.sha256(shown.tobytes()).hexdigest())
    assert hashes(streams, tmp_path, threads, dnn) == expected
