"""Multiple kernel learning: the methods, which differ in how much they let each kernel count."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmcore.fusion.base import Columns
from mmcore.fusion.data import Array
from mmcore.fusion.kernel_fusion import Gammas, KernelFusion, KernelNames
from mmcore.fusion.mkl_weights import alignment_weights, easymkl_weights, lpmkl_weights
from mmcore.fusion.scaling import Scaling
from mmcore.fusion.svm import fit_machine
from mmcore.fusion.targets import Task


class AverageKernelFusion(KernelFusion):
    """Every kernel counts the same, η = 1/M: hard to beat where every view helps (Gönen and Alpaydın 2011)."""

    def __init__(
        self,
        *,
        kernels: KernelNames = "rbf",
        gamma: Gammas = 1.0,
        degree: int = 3,
        coef0: float = 1.0,
        C: float = 10.0,
        memory_bytes: int = 1 << 30,
        landmarks: int = 500,
        scaling: Scaling = "standard",
        modalities: Sequence[str] | None = None,
        random_state: int | None = 0,
        task: Task = "classes",
        columns: Columns | None = None,
    ) -> None:
        self.kernels = kernels
        self.gamma = gamma
        self.degree = degree
        self.coef0 = coef0
        self.C = C
        self.memory_bytes = memory_bytes
        self.landmarks = landmarks
        self.scaling = scaling
        self.modalities = modalities
        self.random_state = random_state
        self.task = task
        self.columns = columns

    def _weights(self, grams: Array, problems: Array, weights: Array) -> Array:
        return np.full((problems.shape[1], len(grams)), 1.0 / len(grams))


class EasyMklFusion(KernelFusion):
    """Kernels count by their share in the margin between each class and the rest, see `easymkl_weights`."""

    tasks = frozenset({"classes", "multilabel"})

    def __init__(
        self,
        *,
        lam: float = 0.1,
        kernels: KernelNames = "rbf",
        gamma: Gammas = 1.0,
        degree: int = 3,
        coef0: float = 1.0,
        C: float = 10.0,
        memory_bytes: int = 1 << 30,
        landmarks: int = 500,
        scaling: Scaling = "standard",
        modalities: Sequence[str] | None = None,
        random_state: int | None = 0,
        task: Task = "classes",
        columns: Columns | None = None,
    ) -> None:
        self.lam = lam
        self.kernels = kernels
        self.gamma = gamma
        self.degree = degree
        self.coef0 = coef0
        self.C = C
        self.memory_bytes = memory_bytes
        self.landmarks = landmarks
        self.scaling = scaling
        self.modalities = modalities
        self.random_state = random_state
        self.task = task
        self.columns = columns

    def _weights(self, grams: Array, problems: Array, weights: Array) -> Array:
        return easymkl_weights(grams, problems, lam=self.lam, weights=weights)


class LpMklFusion(KernelFusion):
    """Kernels and machines are learned together under ‖η‖_p ≤ 1, see `lpmkl_weights`."""

    def __init__(
        self,
        *,
        p: float = 2.0,
        kernels: KernelNames = "rbf",
        gamma: Gammas = 1.0,
        degree: int = 3,
        coef0: float = 1.0,
        C: float = 10.0,
        memory_bytes: int = 1 << 30,
        landmarks: int = 500,
        scaling: Scaling = "standard",
        modalities: Sequence[str] | None = None,
        random_state: int | None = 0,
        task: Task = "classes",
        columns: Columns | None = None,
    ) -> None:
        self.p = p
        self.kernels = kernels
        self.gamma = gamma
        self.degree = degree
        self.coef0 = coef0
        self.C = C
        self.memory_bytes = memory_bytes
        self.landmarks = landmarks
        self.scaling = scaling
        self.modalities = modalities
        self.random_state = random_state
        self.task = task
        self.columns = columns

    def _weights(self, grams: Array, problems: Array, weights: Array) -> Array:
        found = []
        for target in problems.T:

            def solve(gram: Array, target: Array = target) -> tuple[Array, float]:
                machine = fit_machine(gram, target, weights, self._loss())
                return machine.coefficients, machine.linear

            found.append(lpmkl_weights(grams, solve, p=self.p))
        self.curves_["gap"] = max(one.gap for one in found)
        return np.array([one.weights for one in found])


class KernelAlignmentFusion(KernelFusion):
    """Kernels count so that their sum is most like the kernel of the targets, see `alignment_weights`."""

    def __init__(
        self,
        *,
        nonnegative: bool = True,
        kernels: KernelNames = "rbf",
        gamma: Gammas = 1.0,
        degree: int = 3,
        coef0: float = 1.0,
        C: float = 10.0,
        memory_bytes: int = 1 << 30,
        landmarks: int = 500,
        scaling: Scaling = "standard",
        modalities: Sequence[str] | None = None,
        random_state: int | None = 0,
        task: Task = "classes",
        columns: Columns | None = None,
    ) -> None:
        self.nonnegative = nonnegative
        self.kernels = kernels
        self.gamma = gamma
        self.degree = degree
        self.coef0 = coef0
        self.C = C
        self.memory_bytes = memory_bytes
        self.landmarks = landmarks
        self.scaling = scaling
        self.modalities = modalities
        self.random_state = random_state
        self.task = task
        self.columns = columns

    def _weights(self, grams: Array, problems: Array, weights: Array) -> Array:
        return alignment_weights(grams, problems, weights=weights, nonnegative=self.nonnegative)
