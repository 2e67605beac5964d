"""The rates of a run's real files, which `gencomp files` has measured."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gencomp.errors import InputError

FILE = "rates.json"
_JOINT = ("joint_bpp", "joint_file_bpp")


@dataclass(frozen=True)
class FileRates:
    """The rates of the files of one checkpoint on some pictures.

    Attributes:
        source: the file that says so, for messages.
        metrics: name -> entry with "value", as in rates.json.
        protocol: the protocol of the measurement.
        pictures: the pictures in words.
    """

    source: Path
    metrics: dict[str, dict[str, Any]]
    protocol: dict[str, Any]
    pictures: str

    @property
    def code_bpp(self) -> float:
        """The bits that joint containers spend on code, over all pixels."""
        return float(self.metrics["joint_bpp"]["value"])

    @property
    def file_bpp(self) -> float:
        """All bits of joint containers, over all pixels."""
        return float(self.metrics["joint_file_bpp"]["value"])

    def value(self, name: str) -> float | None:
        """A metric of rates.json; None where the pictures or the method have none."""
        entry = self.metrics.get(name)
        return None if entry is None else entry["value"]

    def require(self, weights: str, data: str, split: str, transforms: dict[str, Any]) -> None:
        """Require that the files are those of some weights on some pictures.

        Raises:
            InputError: they are not; the message names the difference.
        """
        own = self.protocol
        found = (own["weights"], own["data"], own["settings"]["split"], own["transforms"])
        wanted = (weights, data, split, transforms)
        for what, a, b in zip(
            ("weights", "data", "split", "transforms"), found, wanted, strict=True
        ):
            if a != b:
                raise InputError(
                    f"the rates in {self.source} do not belong to what was measured: their {what}"
                    f" is {_short(a)}, not {_short(b)}; measure files of the same with `gencomp"
                    " files`"
                )


def of_run(run: Path, name: str) -> FileRates | None:
    """The rates of a run by the evaluation of a given name; None if there is no result yet.

    Raises:
        InputError: the result cannot be read, is not complete, or has no joint containers.
    """
    return read(run / "evaluations" / name / FILE)


def read(path: Path) -> FileRates | None:
    """The content of a rates.json; None if there is no such file.

    Raises:
        InputError: the file cannot be read, is not complete, or has no joint containers.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        metrics, protocol, complete = content["metrics"], content["protocol"], content["complete"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{path} is not a {FILE} of `gencomp files`") from None
    if not complete:
        raise InputError(f"{path} is not complete: the same `gencomp files` goes on with it")
    if not set(_JOINT) <= set(metrics):
        raise InputError(
            f"{path} has no joint containers, as an older version measured it: remove {path.parent}"
            " and run its `gencomp files` again"
        )
    images, of = content["images"], protocol["split_images"]
    pictures = f"all {of} images" if images == of else f"{images} of {of} images, evenly spaced"
    return FileRates(path, metrics, protocol, pictures)


def writing(one: FileRates, every: Sequence[FileRates]) -> list[str]:
    """How files were written, where others were written in another way."""
    said = []
    for key, value in one.protocol.get("written", {}).items():
        others = {str(other.protocol.get("written", {}).get(key)) for other in every}
        if value is not None and len(others) > 1:
            words = ",".join(map(str, value)) or "nothing" if isinstance(value, list) else value
            said.append(f"{key.rpartition('.')[2]} {words}")
    return said


def missing(runs: Sequence[Path], name: str) -> InputError:
    """The refusal of runs whose files were not measured."""
    if len(runs) == 1:
        said = f"run {runs[0]} has no measured rates"
    else:
        said = f"{len(runs)} runs have no measured rates (a sweep stands for its trials)"
    return InputError(f"{said}: {_mend(*runs, name=name)} writes their files and measures them")


def _mend(*runs: Path, name: str) -> str:
    paths = shlex.join(map(str, runs[:3])) + " ..." * (len(runs) > 3)
    named = "" if name == "files" else f" --name {shlex.quote(name)}"
    return f"`gencomp files {paths}{named}`"


def _short(value: Any) -> str:
    return str(value)[:40]
