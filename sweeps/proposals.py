"""The points that a search has proposed, in proposals.json, and what became of each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cluster.files import write_text

FILE = "proposals.json"


class Proposal(NamedTuple):
    """A point of a search.

    Attributes:
        point: the values of the keys in the space.
        notes: what the sampler noted about the point for its later proposals.
    """

    point: dict[str, Any]
    notes: dict[str, Any]


class PastProposal(NamedTuple):
    """A proposal that was made before, with what became of it.

    Attributes:
        proposal: the proposal.
        state: how far its trial has come.
        values: the values of the objective, the least of which are the best; a finished trial has
            them.
        scores: the score of each evaluation by its step; a trial that was stopped early has them.
    """

    proposal: Proposal
    state: Literal["running", "finished", "stopped", "failed"]
    values: tuple[float, ...] = ()
    scores: Mapping[int, float] = {}


def read(directory: Path) -> list[Proposal]:
    """The proposals of the sweep in a directory, in the order in which they were made."""
    file = directory / FILE
    return (
        [Proposal(**one) for one in json.loads(file.read_text(encoding="utf-8"))]
        if file.exists()
        else []
    )


def write(proposals: Sequence[Proposal], directory: Path) -> None:
    """Write all proposals of a sweep in the order in which they were made."""
    write_text(directory / FILE, json.dumps([one._asdict() for one in proposals]))
