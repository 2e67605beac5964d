"""Messages between ranks arrive whole, and nothing that a peer sends is run."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from cluster.runs import Run
from cluster.training import agreement, messages, state
from cluster.training.worker_info import WorkerInfo
from gencomp.errors import InputError
from tests import tiny
from tests.conftest import ROOT
from tests.waiting import PATIENCE

MESSAGES: list[Any] = [None, "", "é\n", {"step": 12, "refusal": None}, ["x" * 5000, [1, 2]]]


def ranks(what: str, folder: Path) -> list[subprocess.Popen[str]]:
    """Two ranks, each of which does something from below and prints its result as JSON."""
    return [
        subprocess.Popen(
            [sys.executable, __file__, what, str(rank), str(folder)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


def said(what: str, folder: Path) -> list[Any]:
    both = [process.communicate(timeout=PATIENCE) for process in ranks(what, folder)]
    assert all(out for out, _ in both), "\n".join(err for _, err in both)
    return [json.loads(out) for out, _ in both]


def test_they_arrive_whole(photos: Path, tmp_path: Path) -> None:
    """Any text and numbers; a choice of a checkpoint, which is a refusal on every rank or on none.

    One start of the ranks does it all.
    """
    for name in ("empty", "whole", "cut"):
        tiny.started(tmp_path / name, tiny.generator(photos))
    tiny.trained(tmp_path / "whole", tiny.generator(photos))
    shutil.copytree(tmp_path / "whole", tmp_path / "cut", dirs_exist_ok=True)
    for path in (tmp_path / "cut" / "checkpoints").glob("step-*/*.safetensors"):
        os.truncate(path, 10)
    first, second = said("talk", tmp_path)
    assert first == second
    assert first["gathered"] == [[[0, one], [1, [one, one]]] for one in MESSAGES]
    assert first["from_first"] == MESSAGES
    assert first["empty"] is None and first["whole"] == "step-000000012"
    assert first["cut"].startswith("no whole checkpoint in ")


def test_one_worker_talks_to_itself() -> None:
    assert messages.gather("x", WorkerInfo()) == ["x"]
    assert messages.from_first("x", WorkerInfo()) == "x"


def test_a_peer_s_pickle_is_not_run(tmp_path: Path) -> None:
    """Rank 0 sends what the object collectives of torch would have unpickled."""
    said("attack", tmp_path)
    assert (tmp_path / "made_by_rank_0").exists()
    assert not (tmp_path / "made_by_a_pickle").exists()


# What each rank runs.


class _Code:
    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self._file),)


def talk(info: WorkerInfo, folder: Path) -> Any:
    gathered = [
        messages.gather([0, one] if info.rank == 0 else [1, [one, one]], info) for one in MESSAGES
    ]
    first = [messages.from_first(one if info.rank == 0 else 7, info) for one in MESSAGES]
    found = {name: choose(info, folder / name) for name in ("empty", "whole", "cut")}
    return {"gathered": gathered, "from_first": first, **found}


def choose(info: WorkerInfo, run: Path) -> str | None:
    try:
        found = state._chosen_checkpoint(Run(run), info)
    except InputError as error:
        return str(error)
    return None if found is None else found.path.name


def attack(info: WorkerInfo, folder: Path) -> None:
    """Rank 0 attacks rank 1 in both of its collective calls."""
    payload = _payload(folder)
    size, content = torch.tensor([len(payload)]), torch.frombuffer(payload, dtype=torch.uint8)
    if info.rank == 0:
        (folder / "made_by_rank_0").mkdir()
        dist.all_gather([torch.zeros_like(size) for _ in range(2)], size)
        dist.all_gather([torch.zeros_like(content) for _ in range(2)], content)
        dist.broadcast(size, src=0)
        dist.broadcast(content, src=0)
        return
    with suppress(ValueError):
        agreement.require_same_data(["x"], info)
    with suppress(ValueError):
        state._chosen_checkpoint(Run(folder / "run"), info)


def _payload(folder: Path) -> bytearray:
    stream = io.BytesIO()
    pickle.Pickler(stream).dump(_Code(folder / "made_by_a_pickle"))
    return bytearray(stream.getvalue())


def main(what: str, rank: int, folder: Path) -> None:
    store = dist.FileStore(str(folder / "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    print(json.dumps(globals()[what](WorkerInfo(rank, 2), folder)))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
