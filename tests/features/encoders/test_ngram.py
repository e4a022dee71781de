from collections import Counter

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectKBest, chi2

from mmcore.config import NgramSettings
from mmcore.errors import DamagedError
from mmcore.features.encoders.base import Samples, scores_of
from mmcore.features.encoders.ngram import NgramEncoder, most_telling, ngrams
from tests.features.encoders.encoding import encoded

WORDS = ("red", "7", "green", "tree")


def sentences(count: int, classes: int = 3) -> Samples:
    random = np.random.default_rng(0)
    filler = ["lorem", "ipsum", "dolor", "sit", "amet", "3rd", "of", "a"]
    labels = np.arange(count) % classes
    values = []
    for label in labels:
        text = list(random.choice(filler, 6))
        # One in five names another class's word beside its own.
        text.insert(int(random.integers(6)), WORDS[label])
        if random.random() < 0.2:
            text.insert(int(random.integers(6)), WORDS[int(random.integers(classes))])
        values.append(" ".join(text))
    return Samples([f"k{n}" for n in range(count)], values, labels)


def fitted(samples: Samples, classes: int = 3, **settings) -> tuple[NgramEncoder, dict]:
    encoder = NgramEncoder(NgramSettings(**settings), {}, [f"c{n}" for n in range(classes)])
    return encoder, encoder.fit(samples, samples)


def test_one_character_numerals_are_words() -> None:
    words, chars = ngrams("Take 7, or 3-D: A!", 2, 3)
    assert words == Counter(["take", "7", "or", "3", "d", "a", "take 7", "7 or", "or 3", "3 d", "d a"])
    assert {"<7", "7>", "<7>", "<ta", "ake"} <= set(chars)


def test_letters_and_numerals_part_where_they_meet() -> None:
    assert "<3>" in ngrams("3rd", 1, 3)[1]
    assert ngrams("STRASSE Straße", 1, 0)[0] == Counter({"strasse": 2})


@pytest.mark.parametrize("block", [0, 1])
def test_weights_are_those_of_scikit_learn(block: int) -> None:
    samples = sentences(40)
    encoder, _ = fitted(samples, min_count=1)
    peer = TfidfVectorizer(analyzer=lambda text: list(ngrams(text, 2, 4)[block].elements()), sublinear_tf=True)
    expected = peer.fit_transform(samples.values).toarray()
    counted = [encoder._count(text) for text in samples.values]
    found = encoder._block([counts[block] for counts in counted], block).toarray()
    order = [encoder._vocabularies[block][term] for term in peer.get_feature_names_out()]
    np.testing.assert_allclose(found[:, order], expected, atol=1e-12)


def test_selection_is_that_of_scikit_learn() -> None:
    samples = sentences(40)
    encoder, _ = fitted(samples, min_count=1)
    x = encoder._weigh([encoder._count(text) for text in samples.values])
    peer = SelectKBest(chi2, k=9).fit(x, samples.labels)
    cut = np.sort(peer.scores_)[-9]
    found = most_telling(x, samples.labels, 9)
    assert (
        set(np.flatnonzero(peer.scores_ > cut + 1e-9)) <= set(found) <= set(np.flatnonzero(peer.scores_ >= cut - 1e-9))
    )
    assert len(found) == 9


def test_it_learns() -> None:
    train = sentences(120)
    encoder, facts = fitted(train)
    other = [f"dolor {word} of amet" for word in WORDS[:3]]
    found = encoded(encoder, other)
    assert found.argmax(axis=1).tolist() == [0, 1, 2]
    assert found.shape == (3, 3)
    assert found.dtype == np.float32
    assert scores_of(encoded(encoder, train.values), train.labels) == pytest.approx(facts["scores"]["train"], abs=1e-4)


def test_train_rows_are_scored_by_a_classifier_that_did_not_learn_from_them() -> None:
    train = sentences(60)
    encoder, facts = fitted(train)
    held_out = encoded(encoder, train.values, train_keys=train.keys)
    assert scores_of(held_out, train.labels) == pytest.approx(facts["scores"]["train_held_out"], abs=1e-4)
    # Another label for one row changes other rows' scores but not that row's own (words and weights know no labels),
    # as long as the same choices are made.
    labels = train.labels.copy()
    labels[5] = (labels[5] + 1) % 3
    changed, more = fitted(Samples(train.keys, train.values, labels))
    assert more["chosen"]["C"] == facts["chosen"]["C"]
    again = encoded(changed, train.values, train_keys=train.keys)
    np.testing.assert_allclose(again[5], held_out[5], atol=1e-6)
    assert np.abs(again - held_out).max() > 1e-3


def test_rows_added_to_train_later_get_scores_too() -> None:
    encoder, _ = fitted(sentences(20), folds=5)
    late = encoded(encoder, ["lorem red", ""], train_keys=["new1", "new2"])
    assert np.isfinite(late).all()


def test_saved_is_loaded() -> None:
    train = sentences(60)
    encoder, _ = fitted(train)
    again = NgramEncoder(NgramSettings(), {}, ["c0", "c1", "c2"])
    again.unpack(encoder.pack())
    for keys in (None, train.keys):
        np.testing.assert_array_equal(
            encoded(encoder, train.values, train_keys=keys), encoded(again, train.values, train_keys=keys)
        )
    assert again.pack() == encoder.pack()
    with pytest.raises(DamagedError, match="cannot be read"):
        again.unpack(encoder.pack() | {"encoder.json": b"{}"})


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_two_and_more_classes(classes: int) -> None:
    train = sentences(80, classes)
    encoder, facts = fitted(train, classes)
    assert encoded(encoder, train.values).shape == (80, classes)
    assert facts["scores"]["train"]["accuracy"] > 0.85


def test_words_never_seen_and_nothing_at_all() -> None:
    encoder, _ = fitted(sentences(30))
    found = encoded(encoder, ["", "zzz", "☃ ☃"])
    np.testing.assert_allclose(found, np.broadcast_to(found[0], found.shape))
    assert encoded(encoder, []).shape == (0, 3)


def test_tiny_data() -> None:
    few = Samples(["a", "b", "c"], ["red tree", "7 tree", "green"], np.array([0, 1, 2]))
    encoder, _ = fitted(few, min_count=1)
    assert np.isfinite(encoded(encoder, few.values, train_keys=few.keys)).all()
    none_kept, _ = fitted(few, min_count=3)
    assert np.isfinite(encoded(none_kept, few.values)).all()
