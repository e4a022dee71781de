"""Weighted sum and autoencoder: their formulas, modality dropout, stopping and resuming."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.errors import FusionError
from mmcore.fusion.autoencoder import AutoencoderFusion
from mmcore.fusion.base import FitRun
from mmcore.fusion.neural import hidden
from mmcore.fusion.weighted import WeightedFusion
from mmcore.training import keeping
from tests.fusion.conftest import QUICK, made

TRAIN, VAL = made(150, 0, 0.3), made(90, 1, 0.3)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 0.99))
def test_hiding_only_hides_and_leaves_one(seed: int, share: float) -> None:
    random = np.random.default_rng(seed)
    present = random.random((20, 3)) < 0.6
    kept = hidden(present, share, random)
    assert not (kept & ~present).any()
    np.testing.assert_array_equal(kept.any(axis=1), present.any(axis=1))


def test_hiding_takes_its_share_and_no_modality_more_than_another() -> None:
    kept = hidden(np.ones((60_000, 3), bool), 0.5, np.random.default_rng(0))
    # Each is kept with 1/2, and with 1/3 of the 1/8 where all would have gone.
    np.testing.assert_allclose(kept.mean(axis=0), 1 / 2 + 1 / 24, atol=0.01)


@pytest.mark.parametrize("weights", ["learned", "gated"])
def test_the_weighted_sum_is_the_formula(weights: str) -> None:
    model = WeightedFusion(weights=weights, dim=8, **QUICK).fit(TRAIN.views, TRAIN.labels, validation=VAL)
    points, network = model.transform(VAL.views), model.network_
    scores = np.full((len(VAL), 3), -np.inf)
    for m, (name, view) in enumerate(VAL.views.items()):
        gate = 0.0 if network.gates is None else points[name] @ network.gates[m].detach().numpy() / np.sqrt(8)
        scores[:, m] = np.where(view.present, float(network.scores[m].detach()) + gate, -np.inf)
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    expected = sum(shares[:, [m]] * np.nan_to_num(points[name]) for m, name in enumerate(VAL.views))
    np.testing.assert_allclose(model.fuse(VAL.views), expected, atol=1e-5)


@pytest.mark.parametrize("fixed", [None, {"text": 1.0, "image": 3.0, "audio": 6.0}])
def test_fixed_weights_are_those_given_shared_out_over_what_is_present(fixed) -> None:
    model = WeightedFusion(weights="fixed", fixed=fixed, dim=8, **QUICK).fit(TRAIN.views, TRAIN.labels)
    points, given = model.transform(VAL.views), fixed or {"text": 1.0, "image": 1.0, "audio": 1.0}
    total = sum(np.where(VAL.views[name].present, number, 0.0) for name, number in given.items())
    expected = sum(np.nan_to_num(points[name]) * number for name, number in given.items()) / total[:, None]
    np.testing.assert_allclose(model.fuse(VAL.views), expected, atol=1e-5)


@pytest.mark.parametrize(
    "fixed", [{"image": 1.0}, {"image": 1, "audio": 1, "video": 1}, {"image": 1, "audio": 1, "text": 0}]
)
def test_fixed_weights_that_do_not_fit_are_refused(fixed) -> None:
    with pytest.raises(FusionError, match="fixed: needs a positive number for each of image, audio, text"):
        WeightedFusion(weights="fixed", fixed=fixed).fit(TRAIN.views, TRAIN.labels)


def test_gates_differ_between_rows_and_global_weights_do_not() -> None:
    model = WeightedFusion(weights="gated", dim=8, **QUICK).fit(TRAIN.views, TRAIN.labels)
    points = [torch.randn(5, 8), torch.randn(5, 8), torch.randn(5, 8)]
    shares = model.network_.weights(points, torch.ones(5, 3, dtype=torch.bool))
    assert shares.std(dim=0).max() > 1e-4
    np.testing.assert_allclose(shares.detach().sum(dim=1), 1.0, rtol=1e-6)


def test_the_autoencoder_asks_for_present_modalities_only() -> None:
    model = AutoencoderFusion(dim=4, hidden=8, reconstruction=0.1, **QUICK).fit(TRAIN.views, TRAIN.labels)
    inputs = [torch.randn(6, width, requires_grad=True) for width in (5, 4, 6)]
    present = torch.tensor([[True, True, False]] * 6)
    fused = torch.randn(6, 4)
    loss = model.network_.extra_loss(inputs, present, fused, torch.ones(6))
    by_hand = [(model.network_.decoders[m](fused) - inputs[m]).square().sum(dim=1) / inputs[m].shape[1] for m in (0, 1)]
    torch.testing.assert_close(loss, 0.1 * ((by_hand[0] + by_hand[1]) / 2).mean())
    loss.backward()
    assert not inputs[2].grad.any()


def test_the_autoencoder_reconstructs_what_it_did_not_see() -> None:
    random = np.random.default_rng(0)
    codes = np.arange(400) % 3
    shared = random.normal(size=(3, 2))[codes] * 2 + 0.3 * random.normal(size=(400, 2))
    views = {name: shared @ random.normal(size=(2, 5)) * 3 + 10 for name in ("a", "b")}
    model = AutoencoderFusion(dim=4, hidden=32, reconstruction=1.0, epochs=60, learning_rate=1e-2).fit(views, codes)
    found = model.reconstruct({"a": views["a"]})
    for name, values in views.items():
        left = ((found[name] - values) ** 2).mean() / values.var(axis=0).mean()
        assert left < 0.25, name


def test_rows_with_nothing_have_no_reconstruction() -> None:
    model = AutoencoderFusion(dim=4, hidden=8, **QUICK).fit(TRAIN.views, TRAIN.labels)
    found = model.reconstruct(VAL.views.without(*VAL.views))
    assert all(np.isnan(values).all() for values in found.values())


class _Memory:
    """A checkpoint in memory, with the process killed after some epochs."""

    def __init__(self) -> None:
        self.data: bytes | None = None

    def load(self) -> bytes | None:
        return self.data

    def save(self, data: bytes) -> None:
        self.data = data

    def clear(self) -> None:
        self.data = None


@pytest.mark.parametrize("kind", [WeightedFusion, AutoencoderFusion])
def test_a_killed_fit_goes_on_to_the_same_bits(kind, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(keeping, "CHECKPOINT_EVERY_S", 0.0)

    def killed(epoch: int, epochs: int, losses: dict[str, float]) -> None:
        if epoch == 4:
            raise KeyboardInterrupt

    def fit(run: FitRun):
        return kind(dim=4, **QUICK).fit(TRAIN.views, TRAIN.labels, validation=VAL, run=run)

    memory, seen = _Memory(), []
    with pytest.raises(KeyboardInterrupt):
        fit(FitRun(memory, killed))
    assert memory.data is not None
    resumed = fit(FitRun(memory, lambda epoch, epochs, losses: seen.append(epoch)))
    # A checkpoint takes its time, so the last one may be some epochs back.
    assert 1 < seen[0] <= 5
    for name, model in (("resumed", resumed), ("whole", fit(FitRun()))):
        (tmp_path / name).mkdir()
        model.save(tmp_path / name)
    for file in ("model.json", "model.safetensors"):
        assert (tmp_path / "resumed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_seeds_differ_and_the_global_random_state_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    fits = [
        WeightedFusion(dim=4, **QUICK, random_state=seed).fit(TRAIN.views, TRAIN.labels).predict_proba(VAL.views)
        for seed in (0, 1)
    ]
    assert (fits[0] != fits[1]).any()
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.gpu
def test_a_gpu_learns_about_the_same() -> None:
    device = "cuda" if torch.cuda.is_available() else pytest.skip("no GPU")
    on_gpu = WeightedFusion(dim=8, **QUICK).fit(TRAIN.views, TRAIN.labels, validation=VAL, run=FitRun(device=device))
    assert on_gpu.score(VAL.views, VAL.labels) > 0.8
