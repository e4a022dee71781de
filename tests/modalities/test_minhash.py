"""Signatures of texts tell the Jaccard index of their five-character shingles."""

import random
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcore.modalities.minhash import MIN_SHINGLES, PLACES, signature, similarity


def shingles(text):
    letters = " ".join(re.findall(r"[^\W_]+", text.lower()))
    return {letters[at : at + 5] for at in range(len(letters) - 4)}


def jaccard(a, b):
    return len(shingles(a) & shingles(b)) / len(shingles(a) | shingles(b))


def sentence(rng, words):
    return ["".join(rng.choices("abcdefghijklmnopé世", k=rng.randint(2, 8))) for _ in range(words)]


@pytest.mark.parametrize("words", [8, 60, 300])
@pytest.mark.parametrize("changed", [0.05, 0.3, 1.0])
def test_the_estimate_is_the_jaccard_index(words, changed):
    rng = random.Random(words)
    errors, variances = [], []
    for _ in range(150):
        one = sentence(rng, words)
        other = [word if rng.random() > changed else sentence(rng, 1)[0] for word in one]
        a, b = " ".join(one), " ".join(other)
        exact = jaccard(a, b)
        errors.append(similarity(signature(a), signature(b)) - exact)
        variances.append(exact * (1 - exact) / PLACES)
    bound = np.sqrt(np.mean(variances))
    assert abs(np.mean(errors)) < 4 * bound / np.sqrt(150) + 0.004  # the estimate is not below 0: a little above at 0
    assert np.sqrt(np.mean(np.square(errors))) < 1.25 * bound + 0.005


def test_trivial_edits_change_nothing():
    plain = "A man, riding a brown horse on the beach at sunset."
    for edited in ("a MAN riding a brown horse -- on the beach\tat  sunset", f"  “{plain}”\n"):
        assert signature(edited) == signature(plain)
    assert similarity(signature(plain), signature(plain.replace("brown", "white"))) > 0.5
    assert similarity(signature(plain), signature("Two dogs are asleep beside an old green sofa.")) < 0.15


def test_few_shingles_have_no_signature():
    assert signature("") is None
    assert signature("?!" * 100) is None
    assert signature("x" * (MIN_SHINGLES + 3)) is None
    assert len(signature("x" * (MIN_SHINGLES + 4))) == PLACES


def test_a_text_that_repeats_itself_fills_every_place():
    assert similarity(signature("ha " * 500), signature("ha " * 400)) == 1
    assert similarity(signature("x" * 50), signature("y" * 50)) < 0.05


def test_the_bands_find_near_duplicates():
    rng = random.Random(3)
    found = chance = 0
    for _ in range(300):
        one = sentence(rng, 60)
        other = list(one)
        other[rng.randrange(60)] = "changed"
        a, b, c = (np.frombuffer(signature(" ".join(text)), "<u8") for text in (one, other, sentence(rng, 60)))
        found += bool((a == b).any())
        chance += bool((a == c).any())
    assert found == 300
    assert chance == 0


@given(st.text())
def test_any_text_has_a_signature_or_none(text):
    got = signature(text)
    assert got == signature(text)
    assert (got is None) == (len(" ".join(re.findall(r"[^\W_]+", text.lower()))) - 4 < MIN_SHINGLES)


def test_signatures_stay_what_they_were():
    assert signature("The quick brown fox jumps over the lazy dog.")[:8].hex() == "3056b58a83227b33"
