"""The recipe of the identity."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from gencomp.recipes.schema import BaseRecipe, Section


class QuantizerSection(Section):
    levels: int = Field(4, ge=2, le=256, description="quantizer levels L of each colour value")


class IdentityRecipe(BaseRecipe):
    """Fit gain and offset of the decoded values."""

    RATE_KEYS: ClassVar[tuple[str, ...]] = ("quantizer.levels",)

    system: Literal["identity"] = "identity"
    stage: Literal["affine"] = "affine"
    quantizer: QuantizerSection = QuantizerSection()
