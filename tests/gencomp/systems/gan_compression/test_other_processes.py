"""Files decode in a fresh process, with another number of threads, and with oneDNN off and on."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from tests.gencomp.gan_cases import coded, picture
from tests.gencomp.other_processes import printed

CASES = ("global", "conditional", "selective", "global_plus")
# The process prints the hashes of what it shows.
READER = """
import hashlib, pickle, sys, torch
from pathlib import Path
from tests.gencomp.gan_cases import coded
found = pickle.loads((Path(sys.argv[1]) / "streams").read_bytes())
for case, streams in found.items():
    system = coded(case)
    system.networks.load_state_dict(torch.load(Path(sys.argv[1]) / f"{case}.pt"))
    codec = system.codec()
    for stream in streams:
        print(hashlib.sha256(codec.decompress(stream).tobytes()).hexdigest())
"""


class Written(NamedTuple):
    """A folder with the weights and the streams of 100 pictures, and the hashes of what they
    show."""

    folder: Path
    hashes: list[str]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("streams")
    generator, streams, hashes = np.random.default_rng(0), {}, []
    for case in CASES:
        system = coded(case)
        torch.save(system.networks.state_dict(), folder / f"{case}.pt")
        codec, streams[case] = system.codec(), []
        for number in range(25):
            one = picture(*map(int, generator.integers(17, 100, 2)), seed=number)
            streams[case].append(codec.compress(one))
            hashes.append(hashlib.sha256(codec.reconstruct(one).tobytes()).hexdigest())
    (folder / "streams").write_bytes(pickle.dumps(streams))
    return Written(folder, hashes)


@pytest.mark.parametrize(("threads", "dnn"), [(1, "off"), (2, "on")])
def test_100_pictures_of_random_sizes(written: Written, threads: int, dnn: str) -> None:
    assert printed(READER, written.folder, threads, dnn) == written.hashes
