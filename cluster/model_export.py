"""The model file of a finished run, with a card of what was measured of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gencomp
from cluster.evaluations.files import plan as files
from cluster.evaluations.metrics import plan as metrics
from cluster.runs import Run
from gencomp import model_file, recipes
from gencomp.errors import InputError
from gencomp.model_file import Card, Data, Description, Fingerprints, Metric, Result
from gencomp.recipes.schema import BaseRecipe
from gencomp.system import Codec

# The result of each kind of evaluation, and the command that writes it.
_RESULTS = {"metrics.json": "gencomp evaluate", "rates.json": "gencomp files"}
# Entries of protocols that name places on one machine; hashes say what lay there.
_PLACES = {*metrics.Plan.LOCATIONS, *files.Plan.LOCATIONS}


def packed(run: Run, licence: str | None = None) -> bytes:
    """The content of the model file of a finished run; the same run gives the same bytes.

    Args:
        run: the run, with the choice of its checkpoint.
        licence: the licence of the model, in the words of whoever gives it away.

    Raises:
        InputError: the run is not finished, has no codec, or one of its results cannot be read.
    """
    checkpoint = run.final_checkpoint()
    system, recipe = run.system(), run.recipe()
    codec = system.codec()
    if codec is None:
        raise InputError(
            f"run {run.path} ({recipe.system}/{recipe.stage}) has no codec: its stage makes no code"
        )
    card = _card(run, recipe, codec, checkpoint.step, checkpoint.networks_hash(), licence)
    description = Description(
        recipe=_shared(recipe),
        parents={role: _shared(one) for role, one in sorted(run.parent_recipes().items())},
        fingerprints=Fingerprints(
            writer=codec.writer_fingerprint.hex(), reader=codec.reader_fingerprint.hex()
        ),
        card=card,
    )
    return model_file.pack(description, system.coding_networks().state_dict())


def _shared(recipe: BaseRecipe) -> dict[str, Any]:
    return recipes.with_bare_names(recipe).model_dump(mode="json")


def _card(
    run: Run, recipe: BaseRecipe, codec: Codec, step: int, weights: str, licence: str | None
) -> Card:
    identity = run.identity()
    results = tuple(_results(run, weights))
    names = [_set_name(one.protocol) for one in results]
    shards = _shared(recipe)["evaluation"]["shards"] or Path(recipe.evaluation_shards()).name
    return Card(
        name=run.path.resolve().name,
        licence=licence,
        gencomp=gencomp.__version__,
        step=step,
        weights=weights,
        data=Data(
            name=next(filter(None, names), shards),
            hashes={key: identity[key] for key in ("data", "evaluation.data") if key in identity},
            split=recipe.data.split,
        ),
        maps=codec.maps,
        results=results,
    )


def _results(run: Run, weights: str) -> Iterator[Result]:
    """What was measured of these weights, by the names of the measurements."""
    trained = run.result() or {}
    if trained.get("protocol", {}).get("weights") == weights:
        metrics = {name: one for name, one in trained.items() if isinstance(one, int | float)}
        yield Result(
            command="gencomp train",
            name=run.path.resolve().name,
            metrics={name: Metric(value=value) for name, value in sorted(metrics.items())},
            protocol=_without_places(trained["protocol"]),
        )
    for folder in sorted((run.path / "evaluations").glob("*")):
        for file, command in _RESULTS.items():
            if (found := _measured(folder / file, command)) is not None:
                if found.protocol.get("weights") == weights:
                    yield found


def _measured(path: Path, command: str) -> Result | None:
    """The result of an evaluation; None where there is none, or blocks are missing.

    Raises:
        InputError: the file is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not content["complete"]:
            return None
        return Result(
            command=command,
            name=path.parent.name,
            metrics={name: _metric(one) for name, one in sorted(content["metrics"].items())},
            protocol=_without_places(content["protocol"]),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path} cannot be read as the result of an evaluation") from None


def _metric(entry: Mapping[str, Any]) -> Metric:
    return Metric(**{key: entry[key] for key in Metric.model_fields if key in entry})


def _without_places(protocol: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in protocol.items() if key not in _PLACES}


def _set_name(protocol: Mapping[str, Any]) -> str | None:
    return protocol.get("stored", {}).get("name")
