"""A run directory is entered by its own recipe and data only, by one writer, also after a crash."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster import data, files, run_entry
from cluster.checkpoints import store
from cluster.files import locked
from cluster.run_entry import enter
from cluster.runs import open_run
from cluster.training.evaluate import evaluate
from gencomp.errors import InputError
from shards.errors import ShardError
from tests import tiny
from tests.conftest import ROOT
from tests.processes import ENVIRONMENT
from tests.waiting import PATIENCE


def test_a_new_run(photos: Path, tmp_path: Path) -> None:
    run = tiny.started(tmp_path / "run", tiny.generator(photos))
    assert run.name == "run" and run.recipe() == tiny.checked(tiny.generator(photos))
    environment = json.loads((run.path / "environment.json").read_text())
    assert {"gencomp", "python", "torch"} <= environment.keys()
    identity = run.identity()
    assert identity["networks.width"] == 4 and "data.shards" not in identity
    assert run.result() is None and run.parent_recipes() == {}
    with pytest.raises(InputError, match="not finished"):
        run.final_checkpoint()
    with pytest.raises(InputError, match="no checkpoint"):
        run.system()


def test_a_checkpoint_can_be_chosen(photos: Path, tmp_path: Path) -> None:
    run, _ = tiny.trained(tmp_path / "run", tiny.generator(photos))
    assert [open_run(run.path, step).final_checkpoint().step for step in (8, 12)] == [8, 12]
    assert open_run(run.path).final_checkpoint().step == 12
    weights = {
        step: open_run(run.path, step).system().networks["generator"].state_dict()
        for step in (8, 12)
    }
    tiny.assert_identical(weights[12], run.system().networks["generator"].state_dict())
    with pytest.raises(AssertionError, match="tensors differ"):
        tiny.assert_identical(weights[8], weights[12])
    with pytest.raises(InputError, match=r"keeps no checkpoint of step 4; kept are 8, 12$"):
        open_run(run.path, 4).final_checkpoint()
    tiny.flip(run.checkpoints / "step-000000008" / "networks.safetensors")
    with pytest.raises(InputError, match=r"step-000000008.networks.safetensors does not match"):
        open_run(run.path, 8).system()
    new = tiny.started(tmp_path / "new", tiny.generator(photos))
    with pytest.raises(InputError, match="keeps no checkpoint of step 4; it has none yet"):
        open_run(new.path, 4).system()
    with pytest.raises(InputError, match="is not finished"):
        open_run(new.path, 4).final_checkpoint()


@pytest.mark.parametrize("ema_decay", [None, 0.7])
def test_a_checkpoint_on_the_way_is_what_training_evaluated(
    ema_decay: float | None, photos: Path, tmp_path: Path
) -> None:
    """Where there are moving averages, they are meant, and not the weights behind them."""
    overrides = {"training.ema_decay": ema_decay, "evaluation.every": 8}
    run, _ = tiny.trained(tmp_path / "run", tiny.generator(photos, overrides))
    (logged,) = (row for row in tiny.rows(run) if "test/mse" in row and row["step"] == 8)
    chosen = open_run(run.path, 8)
    recipe = run.recipe()
    held_out, cpu = data.open_held_out(recipe), torch.device("cpu")
    found = evaluate(chosen.system(), held_out, recipe, 0, 1, cpu)
    assert found == pytest.approx({name: logged[f"test/{name}"] for name in found}, rel=1e-4)
    checkpoint = chosen.final_checkpoint()
    raw = store.Checkpoint(checkpoint.path)
    assert (checkpoint.networks_hash() == raw.networks_hash()) == (ema_decay is None)
    if ema_decay is not None:
        with pytest.raises(AssertionError, match="tensors differ"):
            tiny.assert_identical(checkpoint.networks(), raw.networks())


@pytest.mark.parametrize(("text", "choice"), [("last", "last"), ("best", "best"), ("12", 12)])
def test_choices_are_parsed(text: str, choice: store.Choice) -> None:
    assert store.parse_choice(text) == choice


@pytest.mark.parametrize("text", ["", "newest", "-1", "1.5", "step-12", "٣"])
def test_other_choices_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=f"--checkpoint '{text}' must be last, best or the step"):
        store.parse_choice(text)


def test_the_same_recipe_enters_again(photos: Path, tmp_path: Path) -> None:
    """It does so when the data lie elsewhere now, and by a relative path."""
    run = tiny.started(tmp_path / "run", tiny.generator(photos))
    identity = run.identity()
    moved = Path(shutil.copytree(photos, tmp_path / "moved"))
    again = tiny.started(tmp_path / "run", tiny.generator(moved))
    assert again.identity() == identity
    assert again.recipe().data.shards == str(moved)


def test_locations_are_kept_absolute(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    run = tiny.started(tmp_path / "run", tiny.generator(Path("photos")))
    assert run.recipe().data.shards == str(photos)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("loss.mmd_weight", 11, "loss.mmd_weight was 10.0 and would be 11.0"),
        ("training.steps", 13, "training.steps was 12 and would be 13"),
        (
            "networks.latent_batch_norm",
            False,
            "networks.latent_batch_norm was True and would be False",
        ),
    ],
)
def test_another_recipe_is_refused_with_the_difference(
    photos: Path, tmp_path: Path, key: str, value: Any, said: str
) -> None:
    run = tiny.started(tmp_path / "run", tiny.generator(photos))
    before = tiny.tree(run.path)
    with pytest.raises(InputError) as caught:
        tiny.started(tmp_path / "run", tiny.generator(photos, {key: value}))
    assert said in str(caught.value) and str(run.path) in str(caught.value)
    assert tiny.tree(run.path) == before


def test_other_data_are_refused(photos: Path, tmp_path: Path) -> None:
    from shards.building.build import build

    run = tiny.started(tmp_path / "run", tiny.generator(photos))
    build("photos", tmp_path / "fewer", options={"size": "64"}, limit=20)
    with pytest.raises(InputError, match=r"data was '.*' and would be '"):
        tiny.started(run.path, tiny.generator(tmp_path / "fewer"))


@pytest.mark.parametrize("missing", ["data.split", "evaluation.split"])
def test_a_missing_split_is_named(photos: Path, tmp_path: Path, missing: str) -> None:
    with pytest.raises(ShardError, match=r"no split 'nowhere': it has .*train.*test"):
        tiny.started(tmp_path / "run", tiny.generator(photos, {missing: "nowhere"}))
    assert not (tmp_path / "run").exists()


def test_a_foreign_directory_is_left_alone(photos: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "run"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="is not a run"):
        tiny.started(foreign, tiny.generator(photos))
    assert tiny.tree(foreign) == {"thesis.tex": b"mine"}
    with pytest.raises(InputError, match="not a run directory"):
        open_run(foreign)


def test_an_empty_directory_becomes_the_run(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert tiny.started(tmp_path / "run", tiny.generator(photos)).identity()


@pytest.mark.parametrize("writes", range(4))
def test_a_crash_while_entering_is_no_dead_end(
    photos: Path, generator_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """Whatever was written when the process died, the same command enters the run."""
    raw = tiny.codec(photos, generator_run)
    left = iter(range(writes))
    write = run_entry.write_text

    def dying(path: Path, text: str) -> None:
        if next(left, None) is None:
            raise tiny.Crash
        write(path, text)

    monkeypatch.setattr(run_entry, "write_text", dying)
    with pytest.raises(tiny.Crash):
        tiny.started(tmp_path / "run", raw)
    monkeypatch.setattr(run_entry, "write_text", write)
    run = tiny.started(tmp_path / "run", raw)
    assert run.parent_recipes()["generator"] == tiny.checked(tiny.generator(photos))
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


class TestParents:
    def test_their_weights_are_part_of_the_identity(
        self, photos: Path, generator_run: Path, tmp_path: Path
    ) -> None:
        run = tiny.started(tmp_path / "run", tiny.codec(photos, generator_run))
        final = open_run(generator_run).final_checkpoint()
        assert run.identity()["parent.generator"] == final.networks_hash()

    def test_unfinished(self, photos: Path, tmp_path: Path) -> None:
        tiny.started(tmp_path / "parent", tiny.generator(photos))
        with pytest.raises(InputError, match=r"parent is not finished"):
            tiny.started(tmp_path / "run", tiny.codec(photos, tmp_path / "parent"))

    def test_missing(self, photos: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="not a run directory"):
            tiny.started(tmp_path / "run", tiny.codec(photos, tmp_path / "parent"))

    def test_of_the_wrong_stage(self, photos: Path, codec_run: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"is a run of dplc/codec.*needs one of dplc/wae"):
            tiny.started(tmp_path / "run", tiny.codec(photos, codec_run))
        assert not (tmp_path / "run").exists()

    def test_sizes_that_do_not_fit_it(
        self, photos: Path, generator_run: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(InputError, match="code_channels is 9"):
            tiny.started(
                tmp_path / "run", tiny.codec(photos, generator_run, {"networks.code_channels": 9})
            )
        assert not (tmp_path / "run").exists()

    def test_a_run_can_be_moved_without_them(self, codec_run: Path, tmp_path: Path) -> None:
        moved = Path(shutil.copytree(codec_run, tmp_path / "moved"))
        assert open_run(moved).system().codec() is not None


def test_one_writer(photos: Path, tmp_path: Path) -> None:
    """The lock names its holder and goes with the process, however that ends."""
    run = tiny.started(tmp_path / "run", tiny.generator(photos))
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom cluster.files import locked\n"
        "with locked(Path(sys.argv[1])):\n    print(os.getpid(), flush=True)\n    sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(run.path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        pid = holder.stdout.readline().strip()
        with pytest.raises(InputError, match=f"in use by process {pid} on"), locked(run.path):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with locked(run.path), pytest.raises(InputError, match="in use"), locked(run.path):
        pass
    with locked(run.path):
        pass


def test_text_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    run_entry.write_text(path, "old")
    with pytest.raises(TypeError):
        run_entry.write_text(path, 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        files.write_bytes(path, 3)  # type: ignore[arg-type]
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_enter_is_repeatable(photos: Path, tmp_path: Path) -> None:
    recipe = tiny.checked(tiny.generator(photos))
    enter(tmp_path / "run", recipe)
    before = tiny.tree(tmp_path)
    enter(tmp_path / "run", recipe)
    assert tiny.tree(tmp_path) == before


def test_a_run_is_entered_without_torchs_compiler(photos: Path, tmp_path: Path) -> None:
    """Sizes are checked on networks without values: no random fill, which would import it."""
    file = tiny.write(tiny.generator(photos), tmp_path / "tiny.yaml")
    code = f"""
import sys
from pathlib import Path
from cluster.run_entry import enter
from gencomp import recipes
from gencomp.errors import InputError
enter(Path({str(tmp_path / "run")!r}), recipes.load({str(file)!r}))
assert "torch._dynamo" not in sys.modules and "pandas" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, check=True, timeout=PATIENCE)
