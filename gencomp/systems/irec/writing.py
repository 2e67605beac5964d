"""How a run writes its files: the coder of the latents, and how hard it searches."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gencomp.recipes.schema import WritingSection

CoderName = Literal["relative_entropy", "bits_back", "universal"]
Effort = Literal["fast", "balanced", "best"]


class CodecSection(WritingSection):
    """How files are written; every decoder of the run reads all of them."""

    coder: CoderName | None = Field(
        None,
        description="coder of the latents: relative_entropy for any picture; bits_back for lossless"
        " models, of which many pictures in one joint file cost the least; universal for models"
        " with a uniform posterior; null for universal there, and relative_entropy elsewhere",
    )
    effort: Effort = Field(
        "balanced",
        description="search of relative_entropy, from which omega, oversampling and beams follow"
        " where they are null",
    )
    omega: float | None = Field(
        None, gt=0, le=8, description="Ω, nats of divergence that each index of a block stands for"
    )
    oversampling: float | None = Field(
        None,
        ge=0,
        le=1,
        description="ε, share by which the indices have more nats than the divergence; more makes"
        " the coded latents likelier under their posterior",
    )
    beams: int | None = Field(
        None, ge=1, le=1000, description="B, partial choices of indices that the search keeps"
    )
