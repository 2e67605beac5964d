"""The names of classes go from the builder of a shard set to the words of `gencomp compress`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cluster.run_entry import enter
from cluster.runs import open_run
from gencomp import recipes
from gencomp.cli import main
from gencomp.coding import container
from gencomp.recipes.schema import BaseRecipe
from gencomp.systems.gan_compression.recipe import GanRecipe
from gencomp.systems.gan_compression.writing import class_ids
from tests.gencomp import gan_cases

NAMES = ["ground", "person", "traffic light", "car, auto"]
TINY = (
    "--networks.width 3 --networks.residual_blocks 1 --discriminator.width 4 --data.batch_size 2"
    " --data.transforms.crop [64,64] --training.steps 2 --evaluation.split val --evaluation.limit 2"
).split()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, their label maps, and a shard set of both that names the classes."""
    folder = tmp_path_factory.mktemp("names")
    images, labels, _ = gan_cases.scenes(6, 72, 88)
    for number, parts in enumerate(zip(images, labels, strict=True)):
        split = "val" if number > 3 else "train"
        for kind, pixels in zip(("images", "labels"), parts, strict=True):
            path = folder / kind / split / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    (folder / "names.txt").write_text("\n".join(NAMES), encoding="utf-8")
    words = ["shards", "build", "folder", str(folder / "images"), "--out", str(folder / "set")]
    maps = ["--maps", f"label={folder / 'labels'}", "--class-names", str(folder / "names.txt")]
    assert main([*words, *maps]) == 0
    return folder


def checked(built: Path, **overrides: Any) -> BaseRecipe:
    tiny = gan_cases.overrides("selective") | {"labels.class_names": [], "evaluation.split": "val"}
    chosen = {"data.shards": str(built / "set"), **tiny, **overrides}
    return recipes.load("gan_selective_narrow", chosen)


def names_of(recipe: BaseRecipe) -> list[str]:
    assert isinstance(recipe, GanRecipe)
    return list(recipe.labels.class_names)


def test_files_keep_classes_by_the_names_of_the_set(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the shard set is not, and by a model file."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(built / "set", "set")
    words = ["train", "gan_selective_narrow", "--name", "run", "--data.shards", "set"]
    assert main([*words, "--labels.classes", "4", *TINY]) == 0
    shutil.rmtree("set")
    assert main(["export", "runs/run", "run.gencomp"]) == 0
    image, maps = str(built / "images/val/5.png"), f"label={built / 'labels/val/5.png'}"
    kept = {}
    for source, keep in (
        ("runs/run", "person,car"),
        ("runs/run", "1,3"),
        ("runs/run", "person"),
        ("run.gencomp", "car,person"),
    ):
        out = f"{len(kept)}.gcp"
        words = ["compress", source, image, out, "--maps", maps, "--codec.keep", keep]
        assert main(words) == 0
        kept[source, keep] = container.unpack(Path(out).read_bytes()).members[0].sections
    assert kept["runs/run", "person,car"] == kept["runs/run", "1,3"]
    assert kept["run.gencomp", "car,person"] == kept["runs/run", "1,3"]
    assert kept["runs/run", "person"] != kept["runs/run", "1,3"]


def test_names_are_no_part_of_what_identifies_a_run(built: Path, tmp_path: Path) -> None:
    """A run enters again by its first recipe, by its own, and if it is older than the names."""
    stated, path = checked(built), tmp_path / "run"
    run = enter(path, stated)
    assert names_of(run.recipe()) == NAMES
    assert run.identity()["labels.class_names"] == []
    assert enter(path, stated).recipe() == run.recipe()
    assert enter(path, run.recipe()).identity() == run.identity()
    (path / "recipe.yaml").write_text(recipes.dump(stated), encoding="utf-8")
    assert names_of(open_run(path).recipe()) == []
    assert names_of(enter(path, stated).recipe()) == NAMES


def test_a_recipe_keeps_the_names_that_it_states(built: Path, tmp_path: Path) -> None:
    own = ["a", "b", "c"]
    merged = checked(built, **{"labels.classes": 3, "labels.class_names": own})
    run = enter(tmp_path / "run", merged)
    assert names_of(run.recipe()) == own == run.identity()["labels.class_names"]


def test_a_class_for_all_other_ids_has_no_name(built: Path, tmp_path: Path) -> None:
    assert names_of(enter(tmp_path / "run", checked(built, **{"labels.classes": 5})).recipe()) == (
        NAMES
    )


@pytest.mark.parametrize("classes", [3, 6, 35])
def test_another_number_of_classes_is_refused(
    built: Path,
    tmp_path: Path,
    classes: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["train", "gan_selective_narrow", "--data.shards", str(built / "set"), *TINY]
    assert main([*words, "--labels.classes", str(classes)]) == 2
    said = capsys.readouterr().err
    assert f"labels.classes is {classes}, but the map label of the shard set has 4 classes" in said
    assert said.count("\n") == 1 and not Path("runs").exists()


def test_without_labels_no_classes_are_needed(built: Path, tmp_path: Path) -> None:
    recipe = recipes.load(
        "gan_distortion_narrow",
        {"data.shards": str(built / "set"), "networks.width": 3, "evaluation.split": "val"},
    )
    assert names_of(enter(tmp_path / "run", recipe).recipe()) == []


def test_sets_of_a_mixture_must_agree_on_names(built: Path, tmp_path: Path) -> None:
    parts = [{"shards": str(built / "set")}, {"shards": str(built / "other")}]
    if not (built / "other").exists():
        (built / "other.txt").write_text("\n".join("abcd"), encoding="utf-8")
        words = ["shards", "build", "folder", str(built / "images"), "--out", str(built / "other")]
        maps = ["--maps", f"label={built / 'labels'}", "--class-names", str(built / "other.txt")]
        assert main([*words, *maps]) == 0
    for number, (mixture, names) in enumerate(((parts[:1] * 2, NAMES), (parts, []))):
        recipe = checked(built, **{"data.shards": None, "data.mixture": mixture})
        assert names_of(enter(tmp_path / str(number), recipe).recipe()) == names


def test_a_class_is_called_by_its_whole_name_first() -> None:
    names = ["screen, display", "screen", "door, screen", "door, gate"]
    assert class_ids(["screen", "door", 3], 4, names) == [1, 2, 3]
    for wrong, said in (("gate", "or one of screen, display"), (4, "from 0 to 3")):
        with pytest.raises(ValueError, match=f"names the class {wrong}.*{said}"):
            class_ids([wrong], 4, names)
    with pytest.raises(ValueError, match="they have no names here"):
        class_ids(["car"], 4, [])
