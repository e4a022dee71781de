"""Sequences of networks trained here, and what texts become."""

import math

import numpy as np
import pytest
from pydantic import ValidationError
from tokenizers import Tokenizer

from mmcore.config import BigruSettings, TextTransformerSettings
from mmcore.features.encoders.base import Samples
from mmcore.features.encoders.text_network import START, UNKNOWN
from tests.features.encoders.encoding import encoded
from tests.features.encoders.trained import KINDS, new_encoder, samples_for, texts


@pytest.mark.parametrize("kind", KINDS)
def test_sequences_do_not_depend_on_what_stands_beside_them(kind: str) -> None:
    samples = samples_for(kind, 12)
    made = new_encoder(kind, keep_tokens=True)
    made.fit(samples, samples)
    ready = [made.ready(value) for value in samples.values]
    vectors, tokens = made.encode(made.collate(ready)).landed()
    assert tokens is not None
    assert {one.shape[1] for one in tokens} == {made.token_dim}
    for row in range(3):
        alone, sequence = made.encode(made.collate(ready[row : row + 1])).landed()
        np.testing.assert_allclose(alone[0], vectors[row], atol=1e-5)
        assert sequence is not None
        assert sequence[0].shape == tokens[row].shape
        np.testing.assert_allclose(sequence[0], tokens[row], atol=1e-5)
    plain = new_encoder(kind)
    plain.unpack(made.pack())
    assert plain.token_dim is None
    assert plain.encode(plain.collate(ready)).landed()[1] is None


@pytest.mark.parametrize(("kind", "frames"), [("logmel-cnn", 8), ("logmel-crnn", 4)])
def test_silence_around_a_sound_has_no_positions(kind: str, frames: int) -> None:
    samples = samples_for(kind, 6)
    made = new_encoder(kind, keep_tokens=True)
    made.fit(samples, samples)
    values = [np.ones(length, np.float32) for length in (1, 800, 4000, 8000, 20000)]
    _, tokens = made.encode(made.collate([made.ready(value) for value in values])).landed()
    assert tokens is not None
    for value, sequence in zip(values, tokens, strict=True):
        columns = 1 + min(len(value), 8000) // 80
        assert abs(len(sequence) - math.ceil(columns / frames)) <= 1
        assert len(sequence) >= 1


def test_a_place_of_the_map_sees_its_own_part_of_the_picture() -> None:
    samples = samples_for("cnn", 6)
    made = new_encoder("cnn", size=32, keep_tokens=True, width=4)
    dark, light = (np.full((32, 32, 1), 20, np.uint8) for _ in "ab")
    light[-4:, -4:] = 250
    made.fit(
        Samples(samples.keys, [dark, light] * 3, samples.labels), Samples(samples.keys, [dark] * 6, samples.labels)
    )
    _, tokens = made.encode(made.collate([dark, light])).landed()
    assert tokens is not None
    assert tokens[0].shape == (64, 16)
    moved = np.abs(tokens[0] - tokens[1]).max(axis=1).reshape(8, 8) > 1e-6
    assert moved[-1, -1]
    assert not moved[:3, :3].any()


def test_the_tokenizer_is_learned_from_train_alone_and_kept() -> None:
    train = texts(30)
    val = Samples(["v"], ["zyzzyva zyzzyva zyzzyva red"], np.array([0]))
    made = new_encoder("bigru", vocabulary=400)
    made.fit(train, val)
    facts = made.state()[1]
    kept = Tokenizer.from_str(facts["tokenizer"])
    assert kept.encode("lorem").tokens == ["Ġlorem"]
    assert len(kept.encode("zyzzyva").tokens) > 3
    assert made.ready("Lorem").tolist() == made.ready("lorem").tolist() == [START, *kept.encode("lorem").ids]


def test_any_text_has_pieces() -> None:
    train = texts(12)
    made = new_encoder("text-transformer", max_tokens=6)
    made.fit(train, train)
    assert made.ready("").tolist() == [START]
    assert UNKNOWN not in made.ready("☃ \x00 \ud800 中")
    assert len(made.ready("lorem ipsum " * 50)) == made.length(made.ready("lorem " * 50)) == 6
    found = encoded(made, ["", "☃ \x00 \ud800 中", "lorem ipsum " * 50])
    assert np.isfinite(found).all()


def test_what_text_networks_need_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError, match="width 10 is not a multiple of heads, which is 4"):
        TextTransformerSettings(width=10)
    monkeypatch.setattr("mmcore.config.encoders.neural.find_spec", lambda _: None)
    with pytest.raises(ValidationError, match=r"'bigru' needs tokenizers.*pip install mmcore\[tokenizers\]"):
        BigruSettings()
