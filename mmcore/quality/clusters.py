"""Rows that belong together, as clusters: exact and near duplicates of one modality."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmcore.config.quality import DuplicatesConfig
from mmcore.quality.neighbours import Pairs, Signatures, hamming_pairs, jaccard_pairs, joined


@dataclass(frozen=True, eq=False)
class Clusters:
    """`cluster` (n,): the number of each row's cluster, -1 for rows without a duplicate; `exact` (n,): whether
    another row has equal bytes.
    """

    cluster: NDArray[np.int64]
    exact: NDArray[np.bool_]


def find_clusters(kind: str, hashes: list[pa.Array], signatures: pa.Array | None, wanted: DuplicatesConfig) -> Clusters:
    """Clusters of n rows by hashes of their bytes (equal: exact duplicates) and signatures (alike: near duplicates).

    Every array has n places, null where a row has nothing to compare.
    """
    columns = [column for column in (*hashes, signatures) if column is not None]
    n = len(columns[0]) if columns else 0
    exact = np.zeros(n, np.bool_)
    edges = [np.empty((0, 2), np.int64)]
    for column in hashes if wanted.exact else ():
        same, alike = _equal(column)
        edges.append(same)
        exact |= alike
    if wanted.near and signatures is not None:
        edges += _near(kind, signatures, wanted)
    cluster = joined(n, np.concatenate(edges))
    sizes = np.bincount(cluster, minlength=1) if n else np.zeros(1, np.int64)
    several = sizes > 1
    number = np.where(several, np.cumsum(several) - 1, -1)
    return Clusters(number[cluster] if n else cluster, exact)


def _equal(column: pa.Array) -> tuple[Pairs, NDArray[np.bool_]]:
    """Pairs that join rows of equal values to the first of them, and which rows have an equal one."""
    rows, codes, firsts = _codes(column)
    counts = np.bincount(codes, minlength=len(firsts))
    pairs = np.stack([firsts[codes], rows], axis=1)[counts[codes] > 1]
    alike = np.zeros(len(column), np.bool_)
    alike[rows[counts[codes] > 1]] = True
    return pairs, alike


def _codes(column: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Rows that have a value, the number of each one's value, and each value's first row."""
    rows = np.flatnonzero(pc.is_valid(column).to_numpy(zero_copy_only=False))
    codes = pc.dictionary_encode(column.take(pa.array(rows))).indices.to_numpy().astype(np.int64)
    _, firsts = np.unique(codes, return_index=True)
    return rows, codes, rows[firsts]


def _near(kind: str, column: pa.Array, wanted: DuplicatesConfig) -> list[Pairs]:
    same, _ = _equal(column)
    _, _, firsts = _codes(column)
    lengths = pc.binary_length(column.take(pa.array(firsts))).to_numpy()
    edges = [same]
    # Signatures of different lengths (short and long sounds) are not compared.
    for width in np.unique(lengths).tolist():
        rows = firsts[lengths == width]
        flat = b"".join(column.take(pa.array(rows)).to_pylist())
        signatures: Signatures = np.frombuffer(flat, np.uint8).reshape(len(rows), width)
        if kind == "text":
            pairs = jaccard_pairs(signatures, wanted.text_jaccard)
        elif kind == "image":
            pairs = _alike(signatures, wanted)
        else:
            pairs = hamming_pairs(signatures, int(wanted.audio_share * width * 8))
        edges.append(rows[pairs])
    return edges


def _alike(signatures: Signatures, wanted: DuplicatesConfig) -> Pairs:
    """Pairs of pictures of near hashes that also look alike."""
    # Imported here: planning a run loads this module, and does without OpenCV.
    from mmcore.modalities import looks

    vectors, sides = looks.frequencies(signatures), signatures[:, -1]

    def confirm(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.bool_]:
        cosine = np.einsum("ij,ij->i", vectors[left], vectors[right])
        return looks.alike(cosine, sides[left], sides[right], wanted.image_likeness)

    return hamming_pairs(np.ascontiguousarray(signatures[:, : looks.HASH_BYTES]), wanted.image_bits, confirm)
