"""Model files that are damaged or say what no export would say are refused by one sentence."""

from __future__ import annotations

import json
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from cluster.model_export import packed
from cluster.runs import open_run
from gencomp import model_file
from gencomp.model_file import Description
from tests.gencomp.test_codec_commands import write_image

Tensors = dict[str, Tensor]
_WEIGHT, _COUNTS = "code_encoder.layers.0.weight", "code_tables.counts"
_SECONDS = 10.0  # of CPU: a refusal takes neither the time nor the memory that a file asks for


@pytest.fixture(scope="module")
def content(codec_run: Path) -> bytes:
    return packed(open_run(codec_run))


@pytest.fixture(scope="module")
def whole(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> tuple[Description, Tensors]:
    path = tmp_path_factory.mktemp("model") / "m.gencomp"
    path.write_bytes(content)
    return model_file.read(path)


class Touch:
    """An object whose unpickling leaves a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("unpickled",)


def _header(data: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """The file with another header, whatever it says."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def _shape(header: dict[str, Any]) -> None:
    header[_WEIGHT]["shape"] = [1 << 40, 1 << 20]


def _offsets(header: dict[str, Any]) -> None:
    header[_WEIGHT]["data_offsets"][1] += 1 << 40


def _with_entry(text: str) -> bytes:
    return safetensors.torch.save({"a": torch.zeros(1)}, {"gencomp": text})


DAMAGED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda data: b"", "cannot be read as a model file"),
    "cut in the tensors": (lambda data: data[:-10], "cannot be read as a model file"),
    "cut in the header": (lambda data: data[:200], "cannot be read as a model file"),
    "longer": (lambda data: data + b"more", "cannot be read as a model file"),
    "another kind": (lambda data: b"\x89PNG" + data[4:], "cannot be read as a model file"),
    "a pickle": (lambda data: pickle.dumps(Touch()), "cannot be read as a model file"),
    "a bit of a weight": (
        lambda data: data[:-5] + bytes([data[-5] ^ 1]) + data[-4:],
        "is damaged: its content does not match its hash",
    ),
    "a digit of the card": (
        lambda data: data.replace(b'step\\": 12', b'step\\": 13', 1),
        "is damaged: its content does not match its hash",
    ),
    "a header that is longer than the file": (
        lambda data: (1 << 62).to_bytes(8, "little") + data[8:],
        "cannot be read as a model file",
    ),
    "a huge shape": (lambda data: _header(data, _shape), "cannot be read as a model file"),
    "tensors beyond the end": (
        lambda data: _header(data, _offsets),
        "cannot be read as a model file",
    ),
    "no description": (
        lambda data: safetensors.torch.save({"a": torch.zeros(1)}),
        "is a safetensors file but no model file",
    ),
    "a description that is no JSON": (lambda data: _with_entry("{"), "is refused: invalid JSON"),
    "an endless description": (lambda data: _with_entry("[" * 100_000), "is refused: "),
    "a description without keys": (lambda data: _with_entry("{}"), "recipe is missing"),
    "a list": (lambda data: _with_entry("[]"), "is refused: "),
    "an unknown key": (
        lambda data: data.replace(b'{\\"card\\"', b'{\\"lard\\"', 1),
        "is refused: ",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_is_refused(
    case: str, content: bytes, tmp_path: Path, refused: Callable[..., str]
) -> None:
    change, said = DAMAGED[case]
    changed = change(content)
    assert changed != content
    assert said in _refusal(changed, tmp_path, refused)


def _tensors(name: str, change: Callable[[Tensor], Tensor]) -> Callable[..., None]:
    def act(said: dict[str, Any], tensors: Tensors) -> None:
        tensors[name] = change(tensors[name].clone())

    return act


def _filled(value: float, place: int = 0) -> Callable[[Tensor], Tensor]:
    def fill(tensor: Tensor) -> Tensor:
        tensor.view(-1)[place] = value
        return tensor

    return fill


def _recipe(section: str | None, key: str, value: Any) -> Callable[..., None]:
    def act(said: dict[str, Any], tensors: Tensors) -> None:
        (said["recipe"] if section is None else said["recipe"][section])[key] = value

    return act


def _without(name: str) -> Callable[..., None]:
    return lambda said, tensors: tensors.pop(name)


def _said(key: str, value: Any) -> Callable[..., None]:
    return lambda said, tensors: said.update({key: value})


def _large_discriminator(said: dict[str, Any], tensors: Tensors) -> None:
    """A network for training alone, which would not fit any memory."""
    said["recipe"]["loss"]["mmd_weight"] = 0
    said["recipe"]["latent_discriminator"] |= {"weight": 1, "width": 1 << 16}


# Files that are whole: their hash is that of what they say.
HOSTILE: dict[str, tuple[Callable[..., Any], str]] = {
    "one tensor more": (
        lambda said, tensors: tensors.update(more=torch.zeros(3)),
        "holds 'more', which its recipe has no place for",
    ),
    "one tensor less": (_without(_WEIGHT), f"lacks '{_WEIGHT}', which its recipe asks for"),
    "another shape": (
        _tensors(_WEIGHT, lambda tensor: tensor[:-1]),
        "but its recipe asks for float32 [4, 3, 4, 4]",
    ),
    "another type": (
        _tensors(_WEIGHT, lambda tensor: tensor.bfloat16()),
        "but its recipe asks for float32",
    ),
    "not a number": (_tensors(_WEIGHT, _filled(float("nan"))), "that are not finite"),
    "infinite": (_tensors(_WEIGHT, _filled(float("-inf"))), "that are not finite"),
    "a negative count": (_tensors(_COUNTS, _filled(-1)), "have counts outside 0 to"),
    "a huge count": (_tensors(_COUNTS, _filled(1 << 60)), "have counts outside 0 to"),
    "a parent behind its symbol": (
        _tensors("code_tables.back", _filled(1)),
        "name a symbol that does not come before",
    ),
    "another weight": (_tensors(_WEIGHT, _filled(1.0)), "has other fingerprints than it states"),
    "a huge width": (_recipe("networks", "width", 1 << 60), "cannot be built: "),
    "a large width": (_recipe("networks", "width", 1 << 20), "but its recipe asks for"),
    "endless blocks": (
        _recipe("networks", "residual_blocks", 1 << 40),
        "cannot be built: it has more than",
    ),
    "a large discriminator": (_large_discriminator, "its networks for training have"),
    "a width in words": (_recipe("networks", "width", "wide"), "networks.width is 'wide'"),
    "an unknown system": (_recipe(None, "system", "mine"), "system/stage is mine/codec"),
    "an unknown key": (_recipe(None, "extra", 1), "unknown key extra"),
    "no parents": (_said("parents", {}), "but its recipe names ['generator']"),
    "a wrong parent": (
        lambda said, tensors: said["parents"].update(generator=said["recipe"]),
        "is a run of dplc/codec",
    ),
    "another version": (_said("format", 2), "format is 2, but it should be 1"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused(
    case: str,
    whole: tuple[Description, Tensors],
    tmp_path: Path,
    refused: Callable[..., str],
) -> None:
    change, wanted = HOSTILE[case]
    said, tensors = json.loads(json.dumps(whole[0].model_dump(mode="json"))), dict(whole[1])
    change(said, tensors)
    checked = {name: getattr(whole[0], name) for name in ("card", "fingerprints")}
    description = Description.model_construct(**said | checked)
    assert wanted in _refusal(model_file.pack(description, tensors), tmp_path, refused)


def test_a_stage_without_a_codec_is_refused(
    whole: tuple[Description, Tensors],
    generator_run: Path,
    tmp_path: Path,
    refused: Callable[..., str],
) -> None:
    recipe = whole[0].parents["generator"]
    description = whole[0].model_copy(update={"recipe": recipe, "parents": {}})
    tensors = open_run(generator_run).system().networks.state_dict()
    said = _refusal(model_file.pack(description, tensors), tmp_path, refused)
    assert "is of dplc/wae, which has no codec" in said


def _refusal(data: bytes, tmp_path: Path, refused: Callable[..., str]) -> str:
    (tmp_path / "m.gencomp").write_bytes(data)
    image = write_image(tmp_path / "a.png", 1)
    begin = time.process_time()
    said = refused("compress", "m.gencomp", image, "a.gcp")
    assert time.process_time() - begin < _SECONDS
    assert not (tmp_path / "unpickled").exists()
    return said


def test_a_card_cannot_command_a_terminal(
    whole: tuple[Description, Tensors], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gencomp.cli import main

    description, tensors = whole
    card = description.card.model_copy(update={"licence": "\x1b[2Jnone\r", "name": "a\x07b"})
    changed = description.model_copy(update={"card": card})
    (tmp_path / "m.gencomp").write_bytes(model_file.pack(changed, tensors))
    for path in (tmp_path, tmp_path / "m.gencomp"):
        assert main(["models", str(path)]) == 0
        said = capsys.readouterr().out
        assert "none" in said and not set(said) & {"\x1b", "\x07", "\r"}


def test_the_same_content_gives_the_same_bytes(
    content: bytes, whole: tuple[Description, Tensors]
) -> None:
    description, tensors = whole
    backwards = dict(reversed(tensors.items()))
    assert model_file.pack(description, backwards) == content
