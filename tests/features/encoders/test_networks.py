import numpy as np
import pytest
import torch

from mmcore.errors import DamagedError
from mmcore.features.encoders.base import Samples, centred, scores_of
from mmcore.features.encoders.draws import Draws
from mmcore.features.encoders.image_network import varied
from tests.features.encoders.encoding import encoded
from tests.features.encoders.trained import KINDS, new_encoder, pictures, samples_for, sounds


@pytest.mark.parametrize(
    ("size", "mode"), [(1, "grey"), (8, "rgb"), (28, "grey"), (33, "grey"), (64, "rgb"), (97, "rgb")]
)
@pytest.mark.parametrize("kind", ["cnn", "resnet"])
def test_any_size_and_colour(kind: str, size: int, mode: str) -> None:
    samples = pictures(6, size, 1 if mode == "grey" else 3)
    made = new_encoder(kind, size, mode, epochs=1, keep_hidden=True)
    made.fit(samples, samples)
    assert encoded(made, samples.values).shape == (6, 8)


@pytest.mark.parametrize("kind", ["logmel-cnn", "logmel-crnn"])
@pytest.mark.parametrize("rate_hz", [8000, 44100])
def test_any_rate_and_length(kind: str, rate_hz: int) -> None:
    samples = sounds(6, rate_hz)
    values = [*samples.values[:4], np.zeros(1, np.float32), np.ones(3 * rate_hz, np.float32)]
    made = new_encoder(kind, rate_hz=rate_hz, epochs=1, keep_hidden=True)
    made.fit(Samples(samples.keys, values, samples.labels), samples)
    found = encoded(made, values)
    assert found.shape == (6, 8)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("kind", KINDS)
def test_saved_is_loaded(kind: str) -> None:
    samples = samples_for(kind, 9)
    made = new_encoder(kind)
    facts = made.fit(samples, samples)
    assert len(facts["curves"]["val_loss"]) == 2
    files = made.pack()
    again = new_encoder(kind)
    again.unpack(files)
    np.testing.assert_array_equal(encoded(made, samples.values), encoded(again, samples.values))
    assert again.pack() == files
    with pytest.raises(DamagedError, match="cannot be read"):
        new_encoder(kind, hidden=6).unpack(files)
    with pytest.raises(DamagedError, match="cannot be read"):
        again.unpack(files | {"encoder.safetensors": b"nonsense"})


@pytest.mark.parametrize("kind", KINDS)
def test_settings_decide(kind: str) -> None:
    samples = samples_for(kind, 9)

    def weights(**settings) -> bytes:
        made = new_encoder(kind, **settings)
        made.fit(samples, samples)
        return made.pack()["encoder.safetensors"]

    first = weights()
    torch.manual_seed(123)
    assert weights() == first
    assert weights(seed=1) != first
    assert weights(augment=False) != first


@pytest.mark.parametrize("kind", KINDS)
def test_the_vector_is_scores_and_hidden_units(kind: str) -> None:
    samples = samples_for(kind, 9)
    made = new_encoder(kind, keep_hidden=True)
    facts = made.fit(samples, samples)
    found = encoded(made, samples.values)
    assert found.dtype == np.float32
    assert scores_of(found[:, :3], samples.labels) == pytest.approx(facts["scores"]["train"], abs=1e-5)
    np.testing.assert_allclose(found[:, :3].sum(axis=1), 0, atol=1e-5)
    assert (found[:, 3:] >= 0).all(), "after a ReLU"
    bare = new_encoder(kind, keep_hidden=False)
    bare.unpack(made.pack())
    np.testing.assert_array_equal(encoded(bare, samples.values), found[:, :3])
    assert bare.dim == 3


def test_threads_and_random_state_are_left_alone() -> None:
    before, state = torch.get_num_threads(), torch.random.get_rng_state()
    samples = pictures(9)
    made = new_encoder("cnn")
    made.fit(samples, samples)
    encoded(made, samples.values)
    assert torch.get_num_threads() == before
    assert torch.equal(torch.random.get_rng_state(), state)


def test_varied_images_follow_their_draws_and_stay_images() -> None:
    images = torch.from_numpy(np.stack(pictures(5, 16).values).transpose(0, 3, 1, 2)).float() / 127.5 - 1
    one, same, other = (varied(images, Draws(np.random.default_rng(seed), "cpu")) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.shape == images.shape
    flat = varied(torch.full((4, 3, 8, 8), 0.25), Draws(np.random.default_rng(0), "cpu"))
    torch.testing.assert_close(flat, flat[:, :1, :1, :1].expand_as(flat))


def test_sound_level_does_not_matter() -> None:
    made = new_encoder("logmel-cnn")
    values = sounds(4).values
    made.restore({name: value.numpy() for name, value in made.build().state_dict().items()}, {})
    loud = encoded(made, values)
    np.testing.assert_allclose(encoded(made, [0.03 * value for value in values]), loud, atol=2e-3)


def test_varied_sounds_are_finite_and_follow_their_draws() -> None:
    made = new_encoder("logmel-cnn")
    prepared = made.prepare([*sounds(5).values, np.zeros(400, np.float32)])
    rows = np.arange(6)
    one, same, other = (made.inputs(prepared, rows, Draws(np.random.default_rng(seed), "cpu")) for seed in (0, 0, 1))
    plain = made.inputs(prepared, rows, None)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.shape == plain.shape == (6, 1, 40, 101)
    assert torch.isfinite(one).all()
    assert torch.isfinite(plain).all()


def test_scores_of_agree_with_their_definition() -> None:
    logits, labels = np.random.default_rng(0).normal(size=(20, 3)) * 5, np.arange(20) % 3
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = {"accuracy": (p.argmax(axis=1) == labels).mean(), "log_loss": -np.log(p[np.arange(20), labels]).mean()}
    assert scores_of(logits, labels) == pytest.approx(expected, abs=1e-6)
    assert scores_of(centred(logits), labels) == pytest.approx(expected, abs=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_gpu_learned_encodes_alike_on_the_cpu(kind: str) -> None:
    samples = samples_for(kind, 30)
    made = new_encoder(kind, device="cuda", cross_fit=2)
    facts = made.fit(samples, samples)
    assert np.isfinite(facts["curves"]["all"]["val_loss"]).all()
    again = new_encoder(kind, cross_fit=2)
    again.unpack(made.pack())
    for keys in (None, samples.keys):
        on_gpu, on_cpu = (encoded(one, samples.values, keys) for one in (made, again))
        np.testing.assert_allclose(on_gpu, on_cpu, atol=2e-3)
