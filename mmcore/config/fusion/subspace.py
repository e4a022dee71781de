"""Subspaces that the views share."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from mmcore.config.fusion.base import Headed, MemoryBytes


class Subspace(Headed):
    """What the subspace methods have in common."""

    n_components: int = Field(32, ge=1)
    """Width of the shared space; fewer where the views do not have as many directions in common."""
    reads: Literal["mean", "each"] = "mean"
    """What the head reads: the mean of the present views' points, or all views' points side by side."""


class CcaSettings(Subspace):
    """Regularised (multiset) canonical correlation analysis, then a head on the shared space."""

    implementation: ClassVar[str] = "mmcore.fusion.cca:CcaFusion"
    out_of_core: ClassVar[bool] = True
    version: ClassVar[int] = 3
    draws: ClassVar[bool] = False

    method: Literal["cca"] = "cca"
    shrinkage: float = Field(0.1, ge=0, le=1)
    """Ridge on each view's covariance: 0 is CCA, 1 is PLS."""


class GccaSettings(Subspace):
    """Generalised canonical correlation analysis (MAXVAR), then a head on the shared space."""

    implementation: ClassVar[str] = "mmcore.fusion.gcca:GccaFusion"
    out_of_core: ClassVar[bool] = True
    version: ClassVar[int] = 2
    draws: ClassVar[bool] = False

    method: Literal["gcca"] = "gcca"
    shrinkage: float = Field(0.1, ge=0, le=1)
    """Ridge on each view's covariance, from 0 to 1."""


class PlsSettings(Subspace):
    """Partial least squares, then a head on the shared space."""

    implementation: ClassVar[str] = "mmcore.fusion.pls:PlsFusion"
    out_of_core: ClassVar[bool] = True
    version: ClassVar[int] = 2
    draws: ClassVar[bool] = False

    method: Literal["pls"] = "pls"
    mode: Literal["svd", "canonical"] = "svd"
    """`svd`: all directions at once; `canonical`: one after the other, each from what those before do not explain."""


class KccaSettings(Subspace):
    """Kernel canonical correlation analysis, then a head on the shared space."""

    implementation: ClassVar[str] = "mmcore.fusion.kcca:KccaFusion"

    method: Literal["kcca"] = "kcca"
    shrinkage: float = Field(0.1, gt=0, le=1)
    """Ridge on each view's covariance in the kernel's space; without any, most kernels correlate all views fully."""
    kernel: Literal["linear", "polynomial", "rbf", "cosine", "chi2"] = "rbf"
    """The kernel of every view; `chi2` needs values that are not negative (`scaling: none`)."""
    gamma: float = Field(1.0, gt=0)
    """γ of `rbf` and `polynomial` times the view's width, and γ of `chi2`."""
    degree: int = Field(3, ge=1)
    """Of the `polynomial` kernel."""
    coef0: float = Field(1.0, ge=0)
    """The constant in the `polynomial` kernel."""
    memory_bytes: MemoryBytes = 1 << 30
    """What the exact solution may take, as `1GiB`; where it needs more, it is approximated from landmarks (Nyström)."""
    landmarks: int = Field(500, ge=1)
    """At most this many training rows stand for all in the approximation."""

    @model_validator(mode="after")
    def _not_negative(self) -> Self:
        if self.kernel == "chi2" and self.scaling == "standard":
            raise ValueError("chi2 needs values that are not negative: set `scaling: none` (or l2)")
        return self
