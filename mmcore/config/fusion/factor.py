"""Factorisation of the views into one factor that they share."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from mmcore.config.fusion.base import Headed


class SharedFactorSettings(Headed):
    """One factor from which every view is a linear map (missing views left out), then a head on the factor."""

    implementation: ClassVar[str] = "mmcore.fusion.shared_factor:SharedFactorFusion"
    out_of_core: ClassVar[bool] = True
    draws: ClassVar[bool] = False

    method: Literal["shared-factor"] = "shared-factor"
    n_components: int = Field(32, ge=1)
    """Width of the factor; it may be larger than a view."""
    penalty: float = Field(0.1, ge=0)
    """Weight λ of the L2 penalty on the maps from the factor to the views; the larger, the less rows with missing views
    trust those that they have."""
    factor_penalty: float | None = Field(None, gt=0)
    """Weight μ of an L2 penalty on the factor; without one its components are orthonormal over the training rows."""
    balance: bool = True
    """Whether every view counts alike, however many columns it has."""
    tolerance: float = Field(1e-7, gt=0)
    """The fit ends where the gradient, as a share of its terms, is smaller."""
    max_iterations: int = Field(1000, ge=1)
    """Steps of the fit at most; none are needed where no view is missing."""

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if self.factor_penalty is not None and self.penalty == 0:
            raise ValueError("factor_penalty needs a penalty above 0: else the factor shrinks to nothing")
        return self
