"""The keys of a recipe as text: each one there, with type, range, meaning and value."""

from __future__ import annotations

import textwrap
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, create_model
from pydantic.fields import FieldInfo

from gencomp import recipes
from gencomp.recipes.key_help import describe, range_of, type_of
from gencomp.recipes.schema import BaseRecipe, DataSection, Section, TrainingSection
from gencomp.validation import keys


class Colour(Section):
    """What an image is painted with.

    Much more about it.
    """

    name: Literal["oil", "ink"] = Field("oil", description="what it is made of")
    weight: float = Field(0.5, gt=0, le=1, description="share of the pigment")


class Brush(Colour):
    colour: Colour = Colour()
    width: int | None = Field(None, ge=1, description="hairs side by side")


class Painting(BaseRecipe):
    system: Literal["painting"] = "painting"
    stage: Literal["first"] = "first"
    brush: Brush = Brush()


PAINTING = Painting(
    data=DataSection(shards="data/walls"), training=TrainingSection(steps=3), brush=Brush(width=7)
)


def test_the_whole_text() -> None:
    found = describe(PAINTING, "Keys:", 80, lambda key: key.startswith("brush."))
    assert found.names == (
        "brush.name",
        "brush.weight",
        "brush.colour.name",
        "brush.colour.weight",
        "brush.width",
    )
    assert found.text == textwrap.dedent(
        """\
        Keys:

        brush
          --brush.name oil|ink            what it is made of (default: oil)
          --brush.weight FLOAT            share of the pigment; above 0 and at most 1
                                          (default: 0.5)
          --brush.width INT|null          hairs side by side; at least 1 (default: 7)

        brush.colour: What an image is painted with.
          --brush.colour.name oil|ink     what it is made of (default: oil)
          --brush.colour.weight FLOAT     share of the pigment; above 0 and at most 1
                                          (default: 0.5)"""
    )


def test_notes_stand_in_place_of_the_default() -> None:
    notes = {"brush.width": "searched: 1, 2"}
    text = describe(PAINTING, "Keys:", notes=notes).text
    assert "hairs side by side; at least 1 (searched: 1, 2)" in text


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        (int, "INT"),
        (float | None, "FLOAT|null"),
        (bool, "true|false"),
        (Literal["a", "b"], "a|b"),
        (Literal[1, 3] | None, "1|3|null"),
        (tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]], "[INT, INT]"),
        (tuple[str, ...], "[STR, ...]"),
        (tuple[Colour, ...], "[{name, weight}, ...]"),
    ],
)
def test_types_are_written_as_in_a_file(annotation: Any, said: str) -> None:
    assert type_of(annotation) == said


Small = Annotated[float, Field(ge=0, lt=1)]


@pytest.mark.parametrize(
    ("annotation", "field", "said"),
    [
        (int, Field(ge=1), "at least 1"),
        (int, Field(ge=1, le=64), "1 to 64"),
        (float, Field(gt=0), "above 0"),
        (float | None, Field(gt=0, lt=1), "above 0 and below 1"),
        (int, Field(le=3), "at most 3"),
        (int, Field(), ""),
        (str | None, Field(), ""),
        (tuple[Small, Small], Field(), "each at least 0 and below 1"),
        (tuple[Small, ...] | None, Field(), "each at least 0 and below 1"),
        (tuple[int, ...], Field(), ""),
    ],
)
def test_ranges_are_words(annotation: Any, field: FieldInfo, said: str) -> None:
    made = create_model("Made", value=(annotation, field)).model_fields["value"]
    assert range_of(made) == said


@pytest.mark.parametrize("name", recipes.names())
def test_every_key_of_every_recipe_is_shown_with_its_value(name: str) -> None:
    recipe = recipes.load(name)
    found = describe(recipe, f"Keys of {name}:")
    lines = found.text.splitlines()
    assert max(map(len, lines)) <= 100
    flat = recipes.flatten(recipe.model_dump(mode="json"))
    assert set(found.names) == set(flat) - {"system", "stage"}
    shown = [line.split()[0].removeprefix("--") for line in lines if line.startswith("  --")]
    assert sorted(shown) == sorted(found.names)
    headings = [line.partition(":")[0] for line in lines[2:] if line and line[0] != " "]
    assert sorted(headings) == sorted({one.rpartition(".")[0] for one in found.names})
    for key in keys(type(recipe)):
        assert key.model or not key.section or key.field.description, f"{key.dotted} says nothing"


def test_narrow_terminals_are_kept_to() -> None:
    for width in (60, 80, 120):
        text = describe(recipes.load("dplc_gc_celeba"), "Keys:", width).text
        assert max(map(len, text.splitlines())) <= width
