import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.linear_model import LogisticRegression

from mmcore.config import CnnSettings, LogmelCnnSettings
from mmcore.features.encoders.base import Samples
from mmcore.features.encoders.objectives import nt_xent
from tests.features.encoders.encoding import encoded
from tests.features.encoders.trained import new_encoder, pictures, samples_for


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_nt_xent_is_what_the_paper_says(temperature: float) -> None:
    one, other = np.random.default_rng(0).normal(size=(2, 4, 6))
    z = np.concatenate([one, other])
    alike = np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in z] for a in z])
    losses = []
    for i in range(8):
        j = (i + 4) % 8
        others = sum(np.exp(alike[i, k] / temperature) for k in range(8) if k != i)
        losses.append(-np.log(np.exp(alike[i, j] / temperature) / others))
    found = nt_xent(torch.from_numpy(one), torch.from_numpy(other), temperature)
    assert float(found) == pytest.approx(np.mean(losses), rel=1e-9)


@pytest.mark.parametrize("kind", ["cnn", "resnet", "logmel-cnn", "logmel-crnn"])
def test_labels_are_not_looked_at(kind: str) -> None:
    samples = samples_for(kind, 9)
    unlabelled = Samples(samples.keys, samples.values, np.zeros(9, np.int64))
    files = []
    for given in (samples, unlabelled):
        made = new_encoder(kind, objective="contrastive")
        facts = made.fit(given, given)
        files.append(made.pack())
    assert files[0] == files[1]
    assert set(facts["scores"]["val"]) == {"contrastive_loss"}
    found = encoded(made, samples.values)
    assert found.shape == (9, made.dim) == (9, 5)
    again = new_encoder(kind, objective="contrastive")
    again.unpack(files[0])
    np.testing.assert_array_equal(encoded(again, samples.values), found)


def test_what_is_learned_without_labels_tells_classes_apart() -> None:
    train, test = pictures(90), pictures(60)
    made = new_encoder("cnn", objective="contrastive", epochs=15, width=8, hidden=16, batch_size=32)
    losses = made.fit(train, test)["curves"]["val_loss"]
    assert min(losses) < losses[0]
    probe = LogisticRegression(max_iter=1000).fit(encoded(made, train.values), train.labels)
    assert probe.score(encoded(made, test.values), test.labels) > 0.8


@pytest.mark.parametrize("settings", [{"augment": False}, {"cross_fit": 3}, {"keep_hidden": True}])
def test_what_a_contrastive_objective_excludes(settings: dict) -> None:
    with pytest.raises(ValidationError, match="objective contrastive"):
        CnnSettings(objective="contrastive", **settings)


def test_only_those_that_read_labels_want_classes() -> None:
    assert LogmelCnnSettings().reads_labels
    assert not LogmelCnnSettings(objective="contrastive").reads_labels
    assert LogmelCnnSettings(objective="contrastive", hidden=7).dim(10) == 7
