"""How the outputs of one classifier per modality become one: pools of opinions, and a classifier on top."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import minimize
from scipy.special import logit, softmax

from mmcore.fusion.data import Array
from mmcore.fusion.heads.linear import LinearHead
from mmcore.fusion.targets import Target, calibrate, probabilities
from mmcore.records import Json

Combine = Literal["mean", "product", "stacking", "learned"]

SMALLEST = 1e-12
"""Mixed probabilities are kept this far from 0, and of labels from 1, where their logarithms are taken."""
FLOOR = -20.0
"""Log probabilities are cut here before a classifier reads them."""


@dataclass(frozen=True)
class Scores:
    """What the modalities' classifiers say of n rows."""

    outputs: Array
    """(n, M, k) finished outputs, see `Target`; meaningless where absent."""
    present: Array
    """(n, M) booleans."""
    targets: Array
    weights: Array

    def __len__(self) -> int:
        return len(self.targets)


class Pool:
    """A mean of the present modalities' opinions; weights w_m on a simplex, shared out anew where some are absent.

    Of classes and labels `mean` and `learned` average probabilities (the linear opinion pool, Stone 1961),
    p = Σ_{m∈P} w_m p_m / Σ_{m∈P} w_m, and `product` adds log probabilities or log-odds (the product of experts, Hinton
    2002); both are sharpened by one number β, calibrated on validation rows. Weights are equal, or with `learned` those
    that, with their own β, have the lowest log loss on rows that the classifiers did not learn from. Of numbers all
    take weighted means: `mean` of equal weights, `product` by the inverse of each modality's mean squared error on such
    rows (where the product of Gaussian densities is highest; one that no such row has gets the others' mean error),
    `learned` of the lowest squared error (Breiman 1996, "Stacked regressions").
    """

    def __init__(self, target: Target, combine: Combine, modalities: int) -> None:
        self.target = target
        self.combine = combine
        self.weights = np.full(modalities, 1.0 / modalities)
        self.sharpness = 1.0
        self.tried: dict[str, Json] = {}

    @property
    def learns(self) -> bool:
        """Whether weights are learned."""
        by_error = self.combine == "product" and self.target.task == "regression"
        return len(self.weights) > 1 and (self.combine == "learned" or by_error)

    def points(self, outputs: Array) -> Array:
        """What is averaged, (..., k), of finished outputs (..., k)."""
        if self.combine == "product" or self.target.task == "regression":
            return outputs
        return probabilities(self.target, outputs)

    def fused(self, points: Array, present: Array) -> Array:
        """The weighted mean (n, k) of points (n, M, k) over the present ones."""
        shares = present * self.weights
        shares = shares / np.maximum(shares.sum(axis=1), np.finfo(float).tiny)[:, None]
        return np.asarray(np.einsum("nm,nmk->nk", shares, points))

    def outputs(self, outputs: Array, present: Array) -> Array:
        """Outputs, see `Target`, from the modalities' (n, M, k)."""
        fused = self.fused(self.points(outputs), present)
        if self.target.task == "regression":
            return np.asarray(fused[:, 0])
        if self.combine == "product":
            return np.asarray(self.sharpness * fused * present.sum(axis=1)[:, None])
        if self.target.task == "classes":
            return np.asarray(self.sharpness * np.log(np.maximum(fused, SMALLEST)))
        return np.asarray(self.sharpness * logit(np.clip(fused, SMALLEST, 1 - SMALLEST)))

    def fit(self, unseen: Scores | None, validation: Scores | None) -> None:
        """Learn weights from rows that the classifiers did not learn from; calibrate on validation rows."""
        self.sharpness = 1.0
        if self.learns and unseen is not None:
            if self.combine == "product":
                self.weights = self._by_error(unseen)
            else:
                self.weights, self.sharpness = self._lowest_loss(unseen)
        if validation is not None and len(self.weights) > 1:
            said = self.outputs(validation.outputs, validation.present)
            self.sharpness = calibrate(self.target, said, validation.targets)
        self.tried = {"weights": self.weights.tolist()} if self.learns else {}

    def state(self) -> tuple[dict[str, Array], dict[str, Json]]:
        return {"pool.weights": self.weights}, {"sharpness": self.sharpness}

    def restore(self, arrays: Mapping[str, Array], facts: Mapping[str, Json]) -> None:
        self.weights, self.sharpness = arrays["pool.weights"], facts["sharpness"]

    def _by_error(self, unseen: Scores) -> Array:
        squares = (unseen.outputs[:, :, 0] - unseen.targets[:, None]) ** 2
        counted = unseen.present * unseen.weights[:, None]
        total = counted.sum(axis=0)
        errors = (squares * counted).sum(axis=0) / np.where(total > 0, total, 1.0)
        # Of one that none of these rows has nothing is known: it is taken to be as good as the others.
        if (total > 0).any():
            errors[total <= 0] = errors[total > 0].mean()
        inverse = 1.0 / np.maximum(errors, SMALLEST * self.target.spread**2)
        return np.asarray(inverse / inverse.sum())

    def _lowest_loss(self, unseen: Scores) -> tuple[Array, float]:
        """Weights softmax(θ) and the sharpness with which their loss is lowest.

        Standard normal priors on θ and on the sharpness' logarithm keep them finite where rows are few.
        """
        modalities = len(self.weights)

        def penalised(free: Array) -> float:
            self.weights, self.sharpness = softmax(free[:modalities]), float(np.exp(free[modalities:].sum()))
            said = self.outputs(unseen.outputs, unseen.present)
            return self.target.loss(said, unseen.targets, unseen.weights) + float(free @ free) / (2 * len(unseen))

        # Numbers are not sharpened.
        start = np.zeros(modalities + (self.target.task != "regression"))
        found = minimize(penalised, start, method="L-BFGS-B", options={"gtol": 1e-8, "ftol": 1e-14}).x
        return np.asarray(softmax(found[:modalities])), float(np.exp(found[modalities:].sum()))


class Stack:
    """Stacking (Wolpert 1992): a linear head reads all classifiers' outputs, and which modalities are there.

    It reads log probabilities (Ting and Witten 1999 read probabilities), log-odds, or numbers in units of their
    deviation from the mean, 0 where absent, and one column per modality of 1 where it is present: the product of
    experts is among what it can learn. It learns from scores of training rows by classifiers that did not see them;
    validation rows choose the strength of its penalty and calibrate it.
    """

    learns = True

    def __init__(self, target: Target, random_state: int | None) -> None:
        self.target = target
        self.head = LinearHead(target, random_state=random_state)
        self.tried: dict[str, Json] = {}

    def points(self, outputs: Array) -> Array:
        return outputs

    def fused(self, points: Array, present: Array) -> Array:
        """The mean (n, k) of the classifiers' points (n, M, k) over the present ones."""
        shares = present / np.maximum(present.sum(axis=1), 1)[:, None]
        return np.asarray(np.einsum("nm,nmk->nk", shares, points))

    def outputs(self, outputs: Array, present: Array) -> Array:
        return self.head.outputs(self._read(outputs, present))

    def fit(self, unseen: Scores | None, validation: Scores | None) -> None:
        assert unseen is not None
        held = None
        if validation is not None:
            held = self._read(validation.outputs, validation.present), validation.targets
        self.head.fit(self._read(unseen.outputs, unseen.present), unseen.targets, unseen.weights, held)
        self.tried = {"head": self.head.tried}

    def state(self) -> tuple[dict[str, Array], dict[str, Json]]:
        return self.head.arrays("stack"), {}

    def restore(self, arrays: Mapping[str, Array], facts: Mapping[str, Json]) -> None:
        self.head = LinearHead.restored(self.target, arrays, "stack")

    def _read(self, outputs: Array, present: Array) -> Array:
        if self.target.task == "regression":
            outputs = (outputs - self.target.prior[0]) / self.target.spread
        read = np.clip(outputs, FLOOR, -FLOOR) * present[:, :, None]
        return np.concatenate([read.reshape(len(read), -1), present], axis=1)


def make_combiner(combine: Combine, target: Target, modalities: int, random_state: int | None) -> Pool | Stack:
    return Stack(target, random_state) if combine == "stacking" else Pool(target, combine, modalities)
