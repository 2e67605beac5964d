"""The data section of a recipe in real training: where images lie and in which order they come."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist
from PIL import Image

from cluster import data, worker
from cluster.run_entry import Identities
from cluster.runs import Run
from cluster.training.worker_info import WorkerInfo
from gencomp.errors import InputError
from shards.building.build import build
from tests import tiny
from tests.conftest import ROOT
from tests.shards.object_server import FolderServer
from tests.waiting import PATIENCE


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Crops of 80×80, of which training sees 64×64."""
    out = tmp_path_factory.mktemp("data") / "larger"
    build("photos", out, options={"size": "80"}, shard_size=16, limit=48)
    return out


WINDOWED = {"data.order": "windowed", "data.window": 10, "data.lanes": 2}


def mixture(photos: Path, larger: Path) -> dict[str, Any]:
    """Two sets, one of them transformed to the size of the other, in windows."""
    raw = tiny.generator(photos, WINDOWED)
    parts = [{"shards": str(photos), "weight": 3}, {"shards": str(larger)}]
    raw["data"] |= {
        "mixture": parts,
        "transforms": {"crop": [64, 64], "flip": True, "dither": True},
    }
    del raw["data"]["shards"]
    raw["evaluation"] |= {"shards": str(larger), "transforms": {"crop": [64, 64]}}
    return raw


@pytest.mark.parametrize("step", [1, 6])
def test_a_mixture_goes_on_with_the_same_bits(
    step: int, photos: Path, larger: Path, tmp_path: Path
) -> None:
    raw = mixture(photos, larger)
    straight, _ = tiny.trained(tmp_path / "straight", raw)
    tiny.trained(tmp_path / "run", raw, tiny.stop_after(step))
    run, outcome = tiny.trained(tmp_path / "run", raw)
    assert outcome.finished
    tiny.assert_identical(tiny.state(run), tiny.state(straight))
    assert tiny.rows(run) == tiny.rows(straight)
    protocol = tiny.result(run)["protocol"]
    assert protocol["stored"]["size"] == [80, 80] and protocol["stored"]["storage"] == "png"
    assert protocol["transforms"]["crop"] == [64, 64]


def test_batches_take_the_recipes_way(photos: Path, larger: Path) -> None:
    recipe = tiny.checked(mixture(photos, larger))
    images, order = data.open_training(recipe)
    assert len(images) == 43 + 46
    stream = data.training_stream(recipe, images, order, rank=0, world=1, start=0)
    batches = [data.to_batch(next(stream), WorkerInfo().device) for _ in range(64)]
    stream.close()
    first = batches[0].images_BCHW
    assert first.shape == (8, 3, 64, 64) and first.is_floating_point() and first.max() < 1
    share = np.concatenate([batch.rows_B.numpy() < 43 for batch in batches]).mean()
    assert 0.65 < share < 0.85  # 3 of 4, in the first 512 of a block of 4096 positions
    held_out = data.open_held_out(recipe)
    order = data.held_out_order(recipe, held_out, 8, 8)
    (once,) = data.held_out_batches(recipe, held_out, order, 0, 1)
    (again,) = data.held_out_batches(recipe, held_out, order, 0, 1)
    assert once.images.dtype == np.uint8 and np.array_equal(once.images, again.images)
    assert np.array_equal(once.images[0], held_out.image(0)[8:72, 8:72])


def test_whole_scaled_images_keep_their_shapes(tmp_path: Path) -> None:
    """They cover the size, batches hold one shape each, and the protocol says so."""
    shapes = [(40, 80), (80, 40), (60, 60), (40, 80), (20, 90)]
    folder = tmp_path / "images" / "test"
    folder.mkdir(parents=True)
    for number, (height, width) in enumerate(shapes):
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    build("folder", tmp_path / "set", path=tmp_path / "images")
    raw = tiny.generator(tmp_path / "set")
    raw["evaluation"] |= {"transforms": {"resize": [20, 40], "whole": True}}
    recipe = tiny.checked(raw)
    held_out = data.open_held_out(recipe)
    sizes = data.held_out_sizes(recipe, held_out, range(5))
    assert sizes.tolist() == [[20, 40], [80, 40], [40, 40], [20, 40], [20, 90]]
    order = data.held_out_order(recipe, held_out, 4, 5)
    assert [rows.tolist() for rows in order] == [[0, 3], [1], [2], [4]]
    seen = [host.images.shape[:3] for host in data.held_out_batches(recipe, held_out, order, 0, 1)]
    assert seen == [(2, 20, 40), (1, 80, 40), (1, 40, 40), (1, 20, 90)]
    assert data.evaluation_protocol(recipe)["whole"] is True
    centres = tiny.generator(tmp_path / "set", {"evaluation.transforms": {"resize": [20, 40]}})
    assert "whole" not in data.evaluation_protocol(tiny.checked(centres))


def test_a_set_behind_http_trains_alike(photos: Path, generator_run: Path, tmp_path: Path) -> None:
    with FolderServer(photos.parent) as server:
        location = f"http://127.0.0.1:{server.port}/{photos.name}"
        run, outcome = tiny.trained(tmp_path / "run", tiny.generator(photos) | _at(location))
    assert outcome.finished
    tiny.assert_identical(tiny.state(run), tiny.state(Run(generator_run)))


def _at(location: str) -> dict[str, Any]:
    return {"data": {"shards": location, "batch_size": 8}}


def test_where_things_lie_is_no_identity(photos: Path, larger: Path, tmp_path: Path) -> None:
    raw = mixture(photos, larger)
    moved = json.loads(json.dumps(raw))
    copy = shutil.copytree(larger, tmp_path / "moved")
    moved["data"]["mixture"][1]["shards"] = moved["evaluation"]["shards"] = str(copy)
    assert Identities().of(tiny.checked(moved)) == Identities().of(tiny.checked(raw))
    moved["data"]["mixture"][1]["weight"] = 2
    assert Identities().of(tiny.checked(moved)) != Identities().of(tiny.checked(raw))


def test_both_origins_or_none_are_refused(photos: Path, larger: Path) -> None:
    raw = mixture(photos, larger)
    raw["data"]["shards"] = str(photos)
    with pytest.raises(InputError, match="exactly one of shards and mixture"):
        tiny.checked(raw)


def test_a_password_is_refused(photos: Path) -> None:
    raw = tiny.generator(photos) | _at("s3://name:secret@bucket/set")
    with pytest.raises(InputError, match="AWS_SECRET_ACCESS_KEY") as refused:
        tiny.checked(raw)
    assert "secret@" not in str(refused.value)


def test_workers_with_different_data_are_refused(
    photos: Path, larger: Path, tmp_path: Path
) -> None:
    """Two ranks whose nodes hold different sets under one path."""
    for rank, location in enumerate((photos, larger)):
        tiny.started(tmp_path / f"run{rank}", tiny.generator(location))
    ranks = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(tmp_path)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=PATIENCE)[0] for process in ranks]
    for words in said:
        assert words.startswith("the workers see different data: rank 0 on ")
        assert words.count("\n") == 1
    assert not list(tmp_path.glob("run*/checkpoints/*"))


def main(rank: int, folder: Path) -> None:
    store = dist.FileStore(str(folder / "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    try:
        worker.train(Run(folder / f"run{rank}"), WorkerInfo(rank, 2), worker.Host())
    except InputError as error:
        print(error)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
