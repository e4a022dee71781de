"""Kernel methods: support vector machines on weighted sums of kernels."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from mmcore.config.fusion.base import FusionMethod, MemoryBytes

KernelName = Literal["linear", "polynomial", "rbf", "cosine", "chi2"]
Gamma = Annotated[float, Field(gt=0)]


class KernelMethod(FusionMethod):
    """What the kernel methods have in common."""

    kernels: KernelName | Annotated[list[KernelName], Field(min_length=1)] = "rbf"
    """One or several for each view: linear, polynomial, rbf, cosine, chi2 (of values that are not negative)."""
    gamma: Gamma | Annotated[list[Gamma], Field(min_length=1)] = 1.0
    """γ of rbf and polynomial in units of one over the view's width, of chi2 itself; one kernel for each of several."""
    degree: int = Field(3, ge=1)
    """Power of the polynomial kernel."""
    coef0: float = Field(1.0, ge=0)
    """What the polynomial kernel adds before it takes the power."""
    C: float = Field(10.0, gt=0)
    """What an error costs the support vector machine, against the width of its margin."""
    memory_bytes: MemoryBytes = 1 << 30
    """Memory for Gram matrices, as `1GiB`; where they would take more, Nyström features approximate them."""
    landmarks: int = Field(500, ge=1)
    """At most so many training rows per view carry Nyström features."""

    @model_validator(mode="after")
    def _not_negative(self) -> Self:
        if "chi2" in self.kernels and self.scaling == "standard":
            raise ValueError("chi2 needs values that are not negative: set `scaling: none` (or l2)")
        return self


class AverageKernelSettings(KernelMethod):
    """A support vector machine on the mean of the kernels."""

    implementation: ClassVar[str] = "mmcore.fusion.mkl:AverageKernelFusion"

    method: Literal["average-kernel"] = "average-kernel"


class EasyMklSettings(KernelMethod):
    """EasyMKL: each kernel counts by its share in the margin between a class and the rest."""

    implementation: ClassVar[str] = "mmcore.fusion.mkl:EasyMklFusion"

    tasks: ClassVar[frozenset[str]] = frozenset({"classes", "multilabel"})

    method: Literal["easymkl"] = "easymkl"
    lam: float = Field(0.1, gt=0, le=1)
    """How far the margin is spread over all rows: near 0 it is the closest rows', 1 the distance of the means."""


class LpMklSettings(KernelMethod):
    """lp-norm multiple kernel learning: the kernels' weights and the machine are learned together."""

    implementation: ClassVar[str] = "mmcore.fusion.mkl:LpMklFusion"

    method: Literal["lpmkl"] = "lpmkl"
    p: float = Field(2.0, ge=1)
    """Norm of the weights: 1 leaves many kernels out (SimpleMKL's problem), large values make all count alike."""


class KernelAlignmentSettings(KernelMethod):
    """Centred kernel alignment: the sum of kernels that is most like the targets'."""

    implementation: ClassVar[str] = "mmcore.fusion.mkl:KernelAlignmentFusion"

    method: Literal["kernel-alignment"] = "kernel-alignment"
    nonnegative: bool = True
    """Whether no weight may be negative; a sum with negative weights need not be a kernel."""
