"""Subspaces that the views share."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from mmcore.config.fusion.base import Headed


class CcaSettings(Headed):
    """Regularised (multiset) canonical correlation analysis, then a linear classifier on the shared space."""

    implementation: ClassVar[str] = "mmcore.fusion.cca:CcaFusion"
    draws: ClassVar[bool] = False

    method: Literal["cca"] = "cca"
    n_components: int = Field(32, ge=1)
    """Width of the shared space."""
    shrinkage: float = Field(0.1, ge=0, le=1)
    """Ridge on each view's covariance: 0 is CCA, 1 is PLS."""
