"""Recipes are YAML files, which are read, overridden and validated before anything starts."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gencomp import yaml_text
from gencomp.errors import InputError
from gencomp.recipes import shipped
from gencomp.recipes.schema import RECORD_FIELDS, BaseRecipe, WritingSection
from gencomp.systems.classifier.recipe import ClassifierRecipe
from gencomp.systems.dplc import recipe as dplc
from gencomp.systems.gan_compression import recipe as gan_compression
from gencomp.systems.irec import recipe as irec
from gencomp.systems.pixel_classifier.recipe import PixelClassifierRecipe
from gencomp.systems.urdp import recipe as urdp
from gencomp.systems.vae.recipe import VaeRecipe
from gencomp.validation import sentence

RECIPES: dict[tuple[str, str], type[BaseRecipe]] = {
    ("dplc", "wae"): dplc.WaeRecipe,
    ("dplc", "wgan_gp"): dplc.WganGpRecipe,
    ("dplc", "wasserstein_pp"): dplc.WassersteinPpRecipe,
    ("dplc", "codec"): dplc.CodecRecipe,
    ("dplc", "cae"): dplc.CaeRecipe,
    ("dplc", "gc"): dplc.GcRecipe,
    ("urdp", "end_to_end"): urdp.EndToEndRecipe,
    ("urdp", "universal"): urdp.UniversalRecipe,
    ("urdp", "refinement"): urdp.RefinementRecipe,
    ("urdp", "critic"): urdp.CriticRecipe,
    ("gan_compression", "distortion"): gan_compression.DistortionRecipe,
    ("gan_compression", "adversarial"): gan_compression.AdversarialRecipe,
    ("irec", "rvae"): irec.RvaeRecipe,
    ("irec", "two_level"): irec.TwoLevelRecipe,
    ("irec", "one_level"): irec.OneLevelRecipe,
    ("vae", "elbo"): VaeRecipe,
    ("classifier", "cross_entropy"): ClassifierRecipe,
    ("pixel_classifier", "cross_entropy"): PixelClassifierRecipe,
}


def names() -> list[str]:
    """The names of the recipes that ship with gencomp."""
    return shipped.names(__name__)


def read(source: str | Path) -> dict[str, Any]:
    """The raw mapping of a recipe file, or of a shipped recipe with a given name.

    Raises:
        InputError: there is no such recipe, or it is not a YAML mapping.
    """
    path = Path(source)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise InputError(
                f"recipe {path} does not exist; shipped recipes are {', '.join(names())}"
            )
        text = path.read_bytes()
    elif str(source) in names():
        text = shipped.content(__name__, str(source))
    else:
        raise InputError(
            f"recipe {str(source)!r} is neither a .yaml file nor one of {', '.join(names())}"
        )
    try:
        raw = yaml_text.parse(text)
    except yaml_text.YAMLError as error:
        raise InputError(
            f"recipe {source} is not valid YAML: {' '.join(str(error).split())}"
        ) from None
    if not isinstance(raw, dict):
        raise InputError(f"recipe {source} must be a mapping of sections, not {type(raw).__name__}")
    return raw


def split_overrides(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Take `--section.field value` and `--section.field=value` out of a command line.

    Values are read as YAML, so numbers, booleans and [lists] work as they do in a file.

    Returns:
        The other words, and the mapping {"section.field": value}.
    """
    others: list[str] = []
    overrides: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        key, equals, text = word.removeprefix("--").partition("=")
        if not word.startswith("--") or "." not in key:
            others.append(word)
            continue
        if not equals:
            if not rest:
                raise InputError(f"--{key} needs a value")
            text = rest.pop(0)
        try:
            overrides[key.replace("-", "_")] = yaml_text.parse(text)
        except yaml_text.YAMLError:
            raise InputError(f"the value {text!r} of --{key} is not valid YAML") from None
    return others, overrides


def override_words(overrides: Mapping[str, Any]) -> list[str]:
    """The words of a command line that `split_overrides` reads as these overrides."""
    return [f"--{key}={json.dumps(value)}" for key, value in overrides.items()]


def with_overrides(raw: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a raw recipe with dotted keys replaced; `validate` finds unknown keys."""
    result = copy.deepcopy(dict(raw))
    for dotted, value in overrides.items():
        *sections, field = dotted.split(".")
        target = result
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise InputError(f"recipe key {dotted}: {section} is a value, not a section")
        target[field] = value
    return result


def validate(raw: Mapping[str, Any], source: str | Path = "recipe") -> BaseRecipe:
    """Check a raw recipe and return its model.

    Raises:
        InputError: a key is wrong; one sentence names the first one, its value and what is allowed.
    """
    # They are compared as text, since a list or a mapping in their place cannot be looked up.
    pair = (str(raw.get("system")), str(raw.get("stage")))
    if pair not in RECIPES:
        allowed = ", ".join(f"{system}/{stage}" for system, stage in RECIPES)
        raise InputError(f"{source}: system/stage is {pair[0]}/{pair[1]}, allowed are {allowed}")
    try:
        return RECIPES[pair].model_validate(raw)
    except ValidationError as error:
        raise InputError(f"{source}: {sentence(error, RECIPES[pair])}") from None


def load(source: str | Path, overrides: Mapping[str, Any] | None = None) -> BaseRecipe:
    """Read, override and validate a recipe."""
    return validate(with_overrides(read(source), overrides or {}), source)


def writing(recipe: BaseRecipe) -> dict[str, Any]:
    """The values of how the codec writes files, by dotted key; none for most methods."""
    return {
        f"{name}.{key}": value
        for name, section in recipe
        if isinstance(section, WritingSection)
        for key, value in section.model_dump(mode="json").items()
    }


def rewriting(recipe: BaseRecipe, values: Mapping[str, Any], source: str | Path) -> BaseRecipe:
    """The recipe with other values of how the codec writes files.

    Args:
        recipe: the recipe of a finished run.
        values: the values, by dotted key.
        source: the name of the run in a message.

    Raises:
        InputError: a key says something else than how files are written, or a value is refused.
    """
    allowed = writing(recipe)
    for key in values:
        if key not in allowed:
            said = f"only {', '.join(allowed)}" if allowed else "nothing"
            raise InputError(
                f"{source} is trained, so --{key} cannot be set any more: {said} can be chosen when"
                f" a run of {recipe.system}/{recipe.stage} writes files"
            )
    return validate(with_overrides(recipe.model_dump(mode="json"), values), source)


def completed(recipe: BaseRecipe, names: Mapping[str, Sequence[str]]) -> BaseRecipe:
    """The recipe of a run with what its training set says and the recipe leaves empty.

    Args:
        recipe: the recipe.
        names: the names of the ids of each map of the images (see `BaseRecipe.from_classes`).
    """
    raw = recipe.model_dump(mode="json")
    stated = flatten(raw)
    missing = {k: v for k, v in recipe.from_classes(names).items() if not stated[k]}
    return type(recipe).model_validate(with_overrides(raw, missing)) if missing else recipe


def with_absolute_paths(recipe: BaseRecipe) -> BaseRecipe:
    """The recipe with its shard sets, parent runs and files named by absolute paths."""
    raw = recipe.model_dump(mode="json")
    for section, key in _locations(recipe, raw):
        location = section[key]
        if location is not None and "://" not in location:
            section[key] = str(Path(location).absolute())
    return type(recipe).model_validate(raw)


def with_bare_names(recipe: BaseRecipe) -> BaseRecipe:
    """The recipe with its shard sets, parent runs and files named without their folders.

    It says nothing of the machine that it was trained on, and nothing can be read by it.
    """
    raw = recipe.model_dump(mode="json")
    for section, key in _locations(recipe, raw):
        if (location := section[key]) is not None:
            section[key] = location.rstrip("/").rpartition("/")[2] or location
    return type(recipe).model_validate(raw)


def _locations(recipe: BaseRecipe, raw: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """The keys of a recipe's dump that locate a shard set, a run or a file, as (section, key)."""
    sections = [raw["data"], *raw["data"]["mixture"], raw["evaluation"]]
    parents = raw.get("parents", {})
    files = []
    for dotted in recipe.FILE_KEYS:
        *above, key = dotted.split(".")
        files.append((reduce(getitem, above, raw), key))
    return [
        *((section, "shards") for section in sections),
        *((parents, key) for key in parents),
        *files,
    ]


def dump(recipe: BaseRecipe) -> str:
    """The resolved recipe as YAML, with every value stated."""
    return yaml_text.dump(recipe.model_dump(mode="json"))


def identity(
    recipe: BaseRecipe, data: Mapping[str, str], parents: Mapping[str, str]
) -> dict[str, Any]:
    """The identity of a run: its recipe's values, its data, and the weights it starts from.

    Args:
        recipe: the resolved recipe. Four things are left out: locations, since they do not say
            what is there; logging, saving and keeping, and how files are written, since they do not
            change what is learned; the transforms of evaluations where they equal those of
            training; and a warm-up of the moving average, and whole scaled images, where there are
            none.
        data: the hashes that identify the images, by name (see `cluster.data.hashes`).
        parents: the hash of the weights of each parent run, by role.

    Returns:
        A flat mapping of dotted keys, which can be compared and hashed.
    """
    raw = recipe.model_dump(mode="json")
    for section, key in _locations(recipe, raw):
        del section[key]
    for field in RECORD_FIELDS:
        del raw["training"][field]
    if not recipe.training.ema_warm_up:
        del raw["training"]["ema_warm_up"]
    if not recipe.evaluation.transforms.whole:
        del raw["evaluation"]["transforms"]["whole"]
    if recipe.evaluates_as_it_trains():
        del raw["evaluation"]["transforms"]
    values = {key: value for key, value in flatten(raw).items() if key not in writing(recipe)}
    return {**values, **data, **{f"parent.{role}": h for role, h in parents.items()}}


def digest(identity_: Mapping[str, Any]) -> str:
    """The hash of an identity, 16 hexadecimal digits."""
    text = json.dumps(identity_, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings into dotted keys: {"a": {"b": 1}} becomes {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
