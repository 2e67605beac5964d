"""An evaluation: a directory with the plan that is its identity, and blocks of work."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from cluster import provenance
from cluster.evaluations import plans
from cluster.evaluations.plans import Plan
from cluster.runs import Run, open_run
from gencomp import recipes


@dataclass(frozen=True)
class Evaluation:
    """A directory with its plan. Each kind of evaluation is a subclass.

    A block is a unit of work, and its part is the file that it leaves behind. The number of
    processes or jobs that share the blocks changes no result.

    Attributes:
        PLAN: the class of the plan.
        RESULT: the name of the file that the parts are merged into.
        PART: the name of a part's file, for the number of its block.
        path: the directory, RUN/evaluations/NAME or one that the user has named.
        plan: the plan, which says what is measured and how.
    """

    PLAN: ClassVar[type[Plan]]
    RESULT: ClassVar[str]
    PART: ClassVar[str] = "block-{:05d}.safetensors"

    path: Path
    plan: Plan

    @classmethod
    def find(cls, run: Run, name: str, plan: Plan) -> Self:
        """The evaluation of that name, which need not exist yet. Nothing is written.

        Raises:
            InputError: the directory holds another plan, or something else.
        """
        return cls(plans.find(run, name, plan), plan)

    @classmethod
    def find_at(cls, directory: Path, plan: Plan) -> Self:
        """The evaluation in a directory that --output has named. Nothing is written.

        Args:
            directory: the directory, which need not exist yet.
            plan: the evaluation's plan.

        Raises:
            InputError: the directory holds another plan, or something else.
        """
        return cls(plans.find_at(directory.resolve(), plan, "--output"), plan)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """An evaluation that exists.

        Raises:
            InputError: the directory holds no evaluation, or the plan cannot be read.
        """
        directory = Path(path).resolve()
        return cls(directory, cls.PLAN.read(directory))

    @classmethod
    def lies_in(cls, path: str | Path) -> bool:
        """Whether a directory holds an evaluation of this kind."""
        return (Path(path) / cls.PLAN.FILE).is_file()

    def enter(self) -> Self:
        """Make the directory and write the plan into it, unless that has been done before.

        The environment of this process is added to the record in environment.json.
        """
        plans.enter_at(self.path, self.plan)
        provenance.note(self.path)
        return self

    @property
    def run(self) -> Run:
        """The run in whose directory the evaluation lies, with the checkpoint of the plan."""
        writing = recipes.override_words(self.plan.written)
        return open_run(self.path.parent.parent, self.plan.checkpoint, writing)

    @property
    def result(self) -> Path:
        """The file of the result."""
        return self.path / self.RESULT

    def part(self, block: int) -> Path:
        """The file of a block's part."""
        return self.path / "parts" / self.PART.format(block)

    @property
    def block_sizes(self) -> list[int]:
        """The number of items of each block."""
        return [len(block.items) for block in self.plan.blocks]

    def missing(self) -> list[int]:
        """The numbers of the blocks without a part."""
        # One look at the directory, since there may be thousands of blocks and many who ask.
        folder = self.part(0).parent
        there = set(os.listdir(folder)) if folder.is_dir() else set()
        numbers = range(len(self.plan.blocks))
        return [block for block in numbers if self.part(block).name not in there]

    def block_steps(self, block: int) -> int:
        """The number of steps that the work on a block takes; by default one for each item."""
        return len(self.plan.blocks[block].items)


def name_blocks(sizes: Sequence[int], blocks: Sequence[int]) -> str:
    """Some blocks and the number of their images, in words.

    Args:
        sizes: the number of images of every block.
        blocks: the numbers of the blocks that are to be named.
    """
    named = ", ".join(map(str, blocks[:20])) + (" and more" if len(blocks) > 20 else "")
    return (
        f"{len(blocks)} of {len(sizes)} blocks ({sum(sizes[b] for b in blocks)} images): "
        f"block{'s' * (len(blocks) > 1)} {named}"
    )
