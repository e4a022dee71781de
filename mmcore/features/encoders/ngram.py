"""Text by its words and character n-grams."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse

from mmcore.config import NgramSettings
from mmcore.features.encoders.base import WHOLE, Array, Encoded, LearnedEncoder, OnEpoch, Samples, centred, scores_of
from mmcore.features.encoders.folds import Folds
from mmcore.records import Json

if TYPE_CHECKING:
    from mmcore.training.checkpoint import Checkpoints

WORD = re.compile(r"\w+")
LETTERS_OR_NUMERAL = re.compile(r"[^\W\d_]+|\d+")
"""Where character n-grams stop: `3rd` is a numeral beside two letters."""
KEPT = (128, 512, 2048, None)
"""How many of the most telling n-grams the classifier may see (None: all), tried by cross-validation."""
STRENGTHS = (10.0, 100.0)
"""Inverse L2 penalties tried by cross-validation."""


def ngrams(text: str, longest_words: int, longest_chars: int) -> tuple[Counter[str], Counter[str]]:
    """Word n-grams and, within `<` and `>` around each word, character n-grams of two and more; with their counts."""
    lowered = text.casefold()
    words = WORD.findall(lowered)
    by_words = Counter(
        " ".join(words[i : i + n]) for n in range(1, longest_words + 1) for i in range(len(words) - n + 1)
    )
    framed = [f"<{part}>" for part in LETTERS_OR_NUMERAL.findall(lowered)]
    by_chars = Counter(
        part[i : i + n] for part in framed for n in range(2, longest_chars + 1) for i in range(len(part) - n + 1)
    )
    return by_words, by_chars


class NgramEncoder(LearnedEncoder):
    """TF-IDF, chi-squared selection, multinomial logistic regression; the vector is the scores it gives.

    TF-IDF is (1 + log count)(1 + log((1 + n) / (1 + n with it))), of unit length for words and for characters each.
    How many n-grams are kept and the penalty have the lowest cross-validated log loss on train. The folds follow from
    groups and keys alone, and their classifiers are kept for rows of the training split.
    """

    settings: NgramSettings

    def fit(
        self,
        train: Samples,
        val: Samples,
        *,
        checkpoints: Checkpoints | None = None,
        on_epoch: OnEpoch | None = None,
    ) -> dict[str, Json]:
        from threadpoolctl import threadpool_limits

        with threadpool_limits(self.threads):
            counted = [self._count(text) for text in train.values]
            self._vocabularies, self._weights = zip(
                *(self._vocabulary([counts[block] for counts in counted]) for block in (0, 1)), strict=True
            )
            self._folds = Folds.dealt(train.keys, train.groups, self.settings.folds)
            x, folds = self._weigh(counted), self._folds.of(train.keys, train.groups)
            choice, held_out = self._choose(x, train.labels, folds, on_epoch)
            self._model = self._learn(x, train.labels, choice)
            in_val = self._model.scores(self._weigh([self._count(text) for text in val.values]))
            in_train = self._model.scores(x)
        scores_found = {
            "train": scores_of(in_train, train.labels),
            "train_held_out": held_out,
            "val": scores_of(in_val, val.labels),
        }
        return {"scores": scores_found, "chosen": {"ngrams": len(self._model.columns), "C": choice.strength}}

    def ready(self, value: str) -> tuple[Counter[str], Counter[str]]:
        return self._count(value)

    def encode(self, batch: Any, part: int = WHOLE) -> Encoded:
        # Where no training row was in the fold, the model of all has not seen it either.
        model = self._model if part == WHOLE else self._fold_models.get(part, self._model)
        return Encoded(centred(model.scores(self._weigh(batch))).astype(np.float32))

    def parts(self, keys: Sequence[str], groups: Sequence[str | None] | None) -> Array:
        return self._folds.of(keys, groups)

    def state(self) -> tuple[dict[str, Array], Json]:
        arrays = {"words.weights": self._weights[0], "chars.weights": self._weights[1]}
        models = {"all": self._model} | {str(fold): model for fold, model in self._fold_models.items()}
        for name, model in models.items():
            arrays |= {f"{name}.columns": model.columns, f"{name}.slopes": model.slopes, f"{name}.bases": model.bases}
        words, chars = (list(vocabulary) for vocabulary in self._vocabularies)
        folds = {"folds": sorted(self._fold_models), "groups": dict(self._folds.of_group)}
        return arrays, {"words": words, "chars": chars, **folds}

    def restore(self, arrays: Mapping[str, Array], facts: Json) -> None:
        self._vocabularies = tuple({term: i for i, term in enumerate(facts[block])} for block in ("words", "chars"))
        self._weights = (arrays["words.weights"], arrays["chars.weights"])

        def model(name: str) -> _Linear:
            return _Linear(arrays[f"{name}.columns"], arrays[f"{name}.slopes"], arrays[f"{name}.bases"])

        self._model = model("all")
        self._fold_models = {fold: model(str(fold)) for fold in facts["folds"]}
        self._folds = Folds(self.settings.folds, facts["groups"])

    # Text to numbers

    def _count(self, text: str) -> tuple[Counter[str], Counter[str]]:
        return ngrams(text, self.settings.word_ngrams, self.settings.char_ngrams)

    def _vocabulary(self, counted: Sequence[Counter[str]]) -> tuple[dict[str, int], Array]:
        """The n-grams kept, most frequent first, with their column; and their inverse document frequencies."""
        texts = Counter(term for counts in counted for term in counts)
        frequent = [term for term in texts if texts[term] >= self.settings.min_count]
        kept = sorted(frequent, key=lambda term: (-texts[term], term))[: self.settings.max_features]
        found = np.array([texts[term] for term in kept], dtype=np.float64)
        return {term: i for i, term in enumerate(kept)}, 1 + np.log((1 + len(counted)) / (1 + found))

    def _weigh(self, counted: Sequence[tuple[Counter[str], Counter[str]]]) -> scipy.sparse.csr_array:
        """TF-IDF (n, words + characters)."""
        return scipy.sparse.hstack([self._block([counts[block] for counts in counted], block) for block in (0, 1)])

    def _block(self, counted: Sequence[Counter[str]], block: int) -> scipy.sparse.csr_array:
        vocabulary, weights = self._vocabularies[block], self._weights[block]
        starts, columns, values = [0], [], []
        for counts in counted:
            known = sorted((vocabulary[term], count) for term, count in counts.items() if term in vocabulary)
            row = np.array([(1 + np.log(count)) * weights[column] for column, count in known])
            columns += [column for column, _ in known]
            values.append(row / max(float(np.sqrt(row @ row)), 1e-12))
            starts.append(len(columns))
        data = np.concatenate(values) if values else np.zeros(0)
        shape = (len(counted), len(vocabulary))
        return scipy.sparse.csr_array((data, np.array(columns, np.int64), np.array(starts)), shape=shape)

    # Numbers to scores

    def _kept(self, columns: int) -> list[int]:
        return sorted({columns if kept is None else min(kept, columns) for kept in KEPT})

    def _choose(
        self, x: Any, labels: Array, folds: Array, on_epoch: OnEpoch | None
    ) -> tuple[_Choice, dict[str, float]]:
        """The choice of lowest cross-validated log loss, and its scores; its classifiers become `_fold_models`.

        More n-grams are tried until they no longer help.
        """
        best, best_found, tried = None, {"log_loss": np.inf}, 0
        sizes = self._kept(x.shape[1])
        for size in sizes:
            before = best_found["log_loss"]
            for choice in (_Choice(size, strength) for strength in STRENGTHS):
                models = {fold: self._learn(x[folds != fold], labels[folds != fold], choice) for fold in _in_use(folds)}
                found = scores_of(_held_out(x, folds, models), labels)
                if found["log_loss"] < best_found["log_loss"]:
                    best, best_found, self._fold_models = choice, found, models
                tried += 1
                if on_epoch is not None:
                    on_epoch(tried, len(sizes) * len(STRENGTHS), {"held_out_loss": found["log_loss"]})
            if best_found["log_loss"] == before:
                break
        assert best is not None
        return best, best_found

    def _learn(self, x: Any, labels: Array, choice: _Choice) -> _Linear:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        there = np.unique(labels)
        columns = most_telling(x, labels, choice.kept) if len(there) > 1 else np.zeros(0, np.int64)
        slopes = np.zeros((len(self.classes), len(columns)))
        # A class that none of these rows has stays as unlikely as the rarest could be.
        bases = np.full(len(self.classes), -np.log(1.0 + len(labels)))
        if len(there) > 1:
            model = LogisticRegression(C=choice.strength, tol=1e-3, max_iter=1000)
            with warnings.catch_warnings():
                # Where it has not converged by then, cross-validation has judged what it has come to.
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(x[:, columns], labels)
            # Of two classes scikit-learn keeps the difference only.
            two = len(there) == 2
            slopes[there] = np.concatenate([-model.coef_, model.coef_]) / 2 if two else model.coef_
            bases[there] = np.concatenate([-model.intercept_, model.intercept_]) / 2 if two else model.intercept_
        return _Linear(columns, slopes, bases)


@dataclass(frozen=True)
class _Choice:
    kept: int
    strength: float


@dataclass(frozen=True)
class _Linear:
    """A linear classifier on some columns: `slopes` (classes, columns), `bases` (classes,)."""

    columns: Array
    slopes: Array
    bases: Array

    def scores(self, x: Any) -> Array:
        found: Array = x[:, self.columns] @ self.slopes.T + self.bases
        return found


def _in_use(folds: Array) -> list[int]:
    return [int(fold) for fold in np.unique(folds)]


def _held_out(x: Any, folds: Array, models: Mapping[int, _Linear]) -> Array:
    """Scores (n, classes) of each row by its own fold's model."""
    scores = np.zeros((x.shape[0], len(models[_in_use(folds)[0]].bases)))
    for fold in _in_use(folds):
        scores[folds == fold] = models[fold].scores(x[folds == fold])
    return scores


def most_telling(x: Any, labels: Array, kept: int) -> Array:
    """The `kept` columns of non-negative x (n, d) with the highest chi-squared statistic against the labels (n,).

    As scikit-learn's `chi2`: sums per class against what each column's total would give; ties go to the first.
    """
    classes, rows = np.unique(labels, return_inverse=True)
    ones = scipy.sparse.csr_array((np.ones(len(rows)), (rows, np.arange(len(rows)))), shape=(len(classes), len(rows)))
    observed = (ones @ x).toarray()
    expected = np.bincount(rows)[:, None] / len(rows) * observed.sum(axis=0)[None]
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.nan_to_num(((observed - expected) ** 2 / expected).sum(axis=0))
    return np.sort(np.argsort(-statistic, kind="stable")[:kept])
