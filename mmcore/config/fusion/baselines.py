"""What every table has beside the methods: what can be said without looking at any value."""

from __future__ import annotations

from typing import ClassVar, Literal

from mmcore.config.fusion.base import FusionMethod, Headed


class MajoritySettings(FusionMethod):
    """The classes' shares (labels' rates, mean) of the training rows, whatever the views hold."""

    implementation: ClassVar[str] = "mmcore.fusion.baselines:Majority"
    draws: ClassVar[bool] = False

    method: Literal["majority"] = "majority"
    scaling: Literal["none"] = "none"
    """No value is read."""


class MissingnessSettings(Headed):
    """Predicts from which modalities a row has, and from nothing else."""

    implementation: ClassVar[str] = "mmcore.fusion.baselines:Missingness"
    draws: ClassVar[bool] = False

    method: Literal["missingness"] = "missingness"
    scaling: Literal["none"] = "none"
    """No value is read."""
