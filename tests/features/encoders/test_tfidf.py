"""Held against scikit-learn's own chain."""

import numpy as np
import pytest
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from sklearn.pipeline import make_pipeline

from mmcore.config import TfidfSettings
from mmcore.features.encoders.base import Samples
from mmcore.features.encoders.tfidf import TfidfEncoder
from tests.features.encoders.encoding import encoded

NO_LABELS = np.zeros(0, np.int64)


def texts(count: int, seed: int = 0) -> list[str]:
    """Words as in a language: few that are frequent, many that are rare."""
    random = np.random.default_rng(seed)
    words = np.array([f"w{n}" if n % 3 else str(n) for n in range(400)])
    shares = 1 / np.arange(1, 401)
    return [" ".join(random.choice(words, random.integers(3, 30), p=shares / shares.sum())) for _ in range(count)]


def fitted(train: list[str], **settings) -> TfidfEncoder:
    encoder = TfidfEncoder(TfidfSettings(**settings), {})
    encoder.fit(Samples([f"k{n}" for n in range(len(train))], train, NO_LABELS), Samples([], [], NO_LABELS))
    return encoder


@pytest.mark.parametrize("count", [120, 900])
def test_vectors_are_those_of_scikit_learn_up_to_sign(count: int) -> None:
    train, other = texts(count), [*texts(50, seed=1), "never seen", "", "?!"]
    peer = make_pipeline(
        HashingVectorizer(
            n_features=4096, ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", alternate_sign=False, norm=None
        ),
        TfidfTransformer(sublinear_tf=True),
        TruncatedSVD(12, algorithm="arpack", random_state=3),
    ).fit(train)
    encoder = fitted(train, buckets=4096, components=12)
    for values in (train, other):
        found, expected = encoded(encoder, values), peer.transform(values)
        signs = np.sign((found * expected).sum(axis=0))
        np.testing.assert_allclose(found, expected * signs, atol=1e-5)


@pytest.mark.parametrize("count", [120, 900])
def test_equal_texts_give_equal_bytes_and_come_back(count: int) -> None:
    train = texts(count)
    encoder = fitted(train, components=8)
    assert fitted(train, components=8).pack() == encoder.pack()
    again = TfidfEncoder(encoder.settings, {})
    again.unpack(encoder.pack())
    np.testing.assert_array_equal(encoded(again, train), encoded(encoder, train))
    vectors = encoder.state()[0]["vectors"]
    assert (np.take_along_axis(vectors, np.abs(vectors).argmax(axis=1)[:, None], axis=1) > 0).all()


def test_few_texts_leave_the_rest_zero() -> None:
    found = encoded(fitted(["red tree", "red tree", "7", ""]), ["red tree", "7", "blue", ""])
    assert found.shape == (4, 64)
    assert np.abs(found[:, 2:]).max() == 0, "they span two dimensions"
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), [1, 1, 0, 0], atol=1e-6)
    assert encoded(fitted(["", " "]), ["red", ""]).tolist() == np.zeros((2, 64)).tolist()


def test_the_receipt_tells_how_much_is_kept() -> None:
    train = texts(60)
    facts = TfidfEncoder(TfidfSettings(components=60), {}).fit(
        Samples(train, train, NO_LABELS), Samples([], [], NO_LABELS)
    )
    assert facts == {"kept_variation": pytest.approx(1, abs=1e-6)}
