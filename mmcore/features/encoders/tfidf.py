"""Texts by hashed TF-IDF and a truncated SVD."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse

from mmcore.config import TfidfSettings
from mmcore.features.encoders.base import WHOLE, Array, Encoded, LearnedEncoder, OnEpoch, Samples
from mmcore.records import Json

if TYPE_CHECKING:
    from mmcore.training.checkpoint import Checkpoints

WORDS = r"(?u)\b\w+\b"
SMALL = 512
"""Matrices with fewer rows or columns are decomposed as a whole, where the iteration would have to find nearly all."""
RANK = 1e-5
"""Singular values below this share of the largest are rounding."""


class TfidfEncoder(LearnedEncoder):
    """Word n-grams hashed into columns, weighed by TF-IDF, projected on the training texts' right singular vectors.

    A text's row is (1 + ln count)(1 + ln((1 + n) / (1 + n with it))) in each column, at unit length; its vector is
    that row times the `components` strongest singular vectors of the n training texts' rows, each with its largest
    entry positive (S. Deerwester et al., Indexing by Latent Semantic Analysis, JASIS 1990). Labels are not looked at.
    Columns are MurmurHash3 as in scikit-learn's `HashingVectorizer(alternate_sign=False)`.
    """

    settings: TfidfSettings

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
            counts = self._count(train.values)
            self._texts = len(train)
            self._columns, found = np.unique(counts.indices, return_counts=True)
            self._found = found.astype(np.int64)
            rows = self._weigh(counts)[:, self._columns]
            vectors = singular_vectors(rows, self.settings.components, self.settings.seed)
            self._vectors = vectors.astype(np.float32)
            kept = float((np.asarray(rows @ vectors.T) ** 2).sum())
        return {"kept_variation": round(kept / max(float((rows.data**2).sum()), 1e-12), 6)}

    def encode(self, batch: Any, part: int = WHOLE) -> Encoded:
        vectors = np.zeros((len(batch), self.dim), np.float32)
        vectors[:, : len(self._vectors)] = self._weigh(self._count(batch))[:, self._columns] @ self._vectors.T
        return Encoded(vectors)

    def state(self) -> tuple[dict[str, Array], Json]:
        arrays: dict[str, Array] = {
            "columns": self._columns.astype(np.int64),
            "found": self._found,
            "vectors": self._vectors,
        }
        return arrays, {"texts": self._texts}

    def restore(self, arrays: Mapping[str, Array], facts: Json) -> None:
        self._columns, self._found, self._vectors = (arrays[name] for name in ("columns", "found", "vectors"))
        self._texts = facts["texts"]

    def _count(self, texts: Sequence[str]) -> scipy.sparse.csr_array:
        from sklearn.feature_extraction.text import HashingVectorizer

        hashing = HashingVectorizer(
            n_features=self.settings.buckets,
            ngram_range=(1, self.settings.word_ngrams),
            token_pattern=WORDS,
            alternate_sign=False,
            norm=None,
        )
        return scipy.sparse.csr_array(hashing.transform(texts))

    def _weigh(self, counts: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
        """TF-IDF (n, buckets) at unit length; rows of texts without words stay zero."""
        found = np.zeros(self.settings.buckets)
        found[self._columns] = self._found
        weights = 1 + np.log((1 + self._texts) / (1 + found[counts.indices]))
        values = (1 + np.log(counts.data)) * weights
        rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
        lengths = np.sqrt(np.bincount(rows, values**2, minlength=counts.shape[0]))
        return scipy.sparse.csr_array((values / lengths[rows], counts.indices, counts.indptr), shape=counts.shape)


def singular_vectors(rows: scipy.sparse.csr_array, most: int, seed: int) -> Array:
    """The strongest right singular vectors (at most `most`, d), strongest first, each with its largest entry positive.

    Fewer where the rows (n, d) span fewer dimensions.
    """
    if min(rows.shape) <= max(SMALL, 2 * most):
        _, strengths, vectors = np.linalg.svd(rows.toarray(), full_matrices=False)
    else:
        from scipy.sparse.linalg import svds

        start = np.random.default_rng(seed).uniform(-1, 1, min(rows.shape))
        _, strengths, vectors = svds(rows, k=most, v0=start, return_singular_vectors="vh")
    order = np.argsort(-strengths, kind="stable")[:most]
    order = order[strengths[order] > RANK * strengths.max(initial=0)]
    vectors = np.asarray(vectors)[order]
    if not len(order):
        return np.zeros((0, rows.shape[1]))
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=1)[:, None], axis=1)
    signed: Array = vectors * np.sign(largest)
    return signed
