"""Errors of pydantic in words: the key, its value and what is allowed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gencomp.validation import did_you_mean, keys, nearest, option_name, sentence


class Brush(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=lambda name: name.replace("_", "-"))

    hair_length: int = Field(1, ge=1)


class Painting(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: int = Field(3, ge=1)
    shape: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (1, 1)
    ground: Literal["oil", "ink"] = "oil"
    brush: Brush = Brush()
    other: Brush | None = None
    more: tuple[Brush, ...] = ()
    names: dict[str, Brush] = {}
    framed: bool = False
    frame: str | None = None

    @model_validator(mode="after")
    def _frame_is_known(self) -> Painting:
        if self.framed and self.frame is None:
            raise ValueError("framed needs a frame")
        return self


def error_of(values: Any) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        Painting.model_validate(values)
    return caught.value


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"size": 0}, "size is 0, but it should be greater than or equal to 1"),
        ({"size": "big"}, "size is 'big', but it should be a valid integer, unable to"),
        ({"ground": "mud"}, "ground is 'mud', but it should be 'oil' or 'ink'"),
        ({"shape": 3}, "shape is 3, but it should be a list"),
        ({"shape": [1, 0]}, "shape.1 is 0, but it should be greater than 0"),
        ({"shape": [1]}, "shape.1 is missing"),
        ({"brush": 3}, "brush is 3, but it should be a mapping of keys"),
        ({"brush": {"hair-length": 0}}, "brush.hair-length is 0, but"),
        ({"framed": True}, "framed needs a frame"),
        ([], "it should be a mapping of keys"),
        (
            {"zzz": 1},
            "unknown key zzz; allowed here are brush, frame, framed, ground, more, names, other,",
        ),
        ({"sizes": 1}, "unknown key sizes; did you mean size?"),
        ({"hair_length": 1}, "unknown key hair_length; did you mean brush.hair-length"),
        ({"bruhs": {"a": 1, "b": 2}}, "unknown key bruhs; did you mean brush?"),
        ({"zzz": {"size": 1}}, "unknown key zzz; allowed here are brush, frame, framed,"),
        ({"brush": {"zzz": 1}}, "unknown key brush.zzz; allowed here are hair-length"),
        ({"other": {"zzz": 1}}, "unknown key other.zzz; allowed here are hair-length"),
        ({"more": [{}, {"zzz": 1}]}, "unknown key more.1.zzz; allowed here are hair-length"),
        ({"names": {"a": {"zzz": 1}}}, "unknown key names.a.zzz"),
    ],
)
def test_the_first_error_is_one_sentence(values: Any, said: str) -> None:
    found = sentence(error_of(values), Painting)
    assert found.startswith(said) and "\n" not in found


class Frame(BaseModel):
    width: int = 1
    colour: str = "gold"


class Wall(BaseModel):
    width: int = 1


class House(BaseModel):
    frame: Frame = Frame()
    wall: Wall = Wall()
    walls: tuple[Wall, ...] = ()
    seed: int = 0


def test_keys_are_listed_section_by_section() -> None:
    assert [key.dotted for key in keys(House)] == [
        "frame",
        "frame.width",
        "frame.colour",
        "wall",
        "wall.width",
        "walls",
        "seed",
    ]
    assert [key.dotted for key in keys(House) if key.model] == ["frame", "wall"]


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("frame.colour", ["frame.colour"]),
        ("frame.color", ["frame.colour"]),
        ("colour", ["frame.colour"]),
        ("wall.colour", ["frame.colour"]),
        ("walls.seed", ["seed"]),
        ("sed", ["seed"]),
        ("frames.width", ["frame.width"]),
        ("waall.width", ["wall.width"]),
        ("width", ["frame.width", "wall.width"]),
        ("door.width", ["wall.width", "frame.width"]),
        ("door.handle", []),
        ("", []),
    ],
)
def test_the_nearest_key_is_found_by_its_last_part(wrong: str, meant: list[str]) -> None:
    known = [key.dotted for key in keys(House) if key.model is None]
    assert sorted(nearest(wrong, known)) == sorted(meant)


def test_suggestions_are_a_question() -> None:
    assert did_you_mean(["a"]) == "did you mean a?"
    assert did_you_mean(["a", "b"]) == "did you mean a or b?"
    assert did_you_mean(["a", "b", "c"]) == "did you mean a, b or c?"


def test_the_options_of_a_command_are_named_as_they_are_written() -> None:
    class Options(BaseModel):
        batch_size: int = Field(1, ge=1)
        metrics: tuple[Literal["mse"], ...] = ()

        @model_validator(mode="after")
        def _fit(self) -> Options:
            if self.batch_size == 13:
                raise ValueError("--batch-size 13 brings bad luck")
            return self

    for values, said in (
        ({"batch_size": 0}, "--batch-size is 0, but it should be greater than or equal to 1"),
        ({"metrics": ["psnr"]}, "--metrics is 'psnr', but it should be 'mse'"),
        ({"batch_size": 13}, "--batch-size 13 brings bad luck"),
    ):
        with pytest.raises(ValidationError) as caught:
            Options.model_validate(values)
        assert sentence(caught.value, Options, option_name) == said


def test_what_is_no_json_is_said_without_its_text() -> None:
    with pytest.raises(ValidationError) as caught:
        Painting.model_validate_json('{"size": 3')
    assert sentence(caught.value, Painting).startswith("invalid JSON: EOF while parsing")


def test_long_values_are_cut() -> None:
    found = sentence(error_of({"size": "x" * 10_000}), Painting)
    assert found.startswith("size is 'xxx") and len(found) < 250
