"""Variational autoencoders against closed forms: products, divergences, and the exact likelihood of a linear model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.linear_model import LogisticRegression
from torch import nn

from mmcore.fusion.data import View, Views
from mmcore.fusion.impute import Imputer
from mmcore.fusion.vae import VaeFusion, VaeNetwork, divergence, log_normal, product, random_subsets
from tests.fusion.conftest import QUICK, made

POSTERIORS = ("product", "mixture", "product-mixture")
WIDTHS, CODE = (5, 4, 6), 3


def network(posterior: str, **settings) -> VaeNetwork:
    torch.manual_seed(0)
    return VaeNetwork(WIDTHS, 2, CODE, 8, posterior=posterior, **settings).eval()


def batch(rows: int = 40) -> tuple[list[torch.Tensor], torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    present = torch.rand(rows, len(WIDTHS), generator=random) < 0.6
    present[~present.any(dim=1), 0] = True
    return [torch.randn(rows, width, generator=random) for width in WIDTHS], present


def loss_of(model: VaeNetwork, inputs: list[torch.Tensor], present: torch.Tensor, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return model.extra_loss(inputs, present, torch.zeros(len(present), CODE), torch.ones(len(present)))


# Closed forms


def test_a_products_precision_is_the_sum_of_precisions() -> None:
    means, log_variances = torch.randn(7, 3, 2, dtype=torch.float64), torch.randn(7, 3, 2, dtype=torch.float64)
    chosen = torch.tensor([[True, True, False]]).repeat(7, 1)
    for prior in (True, False):
        mean, log_variance = product((means, log_variances), chosen, prior=prior)
        precisions = np.exp(-log_variances.numpy())[:, :2]
        total = precisions.sum(axis=1) + prior
        np.testing.assert_allclose(np.exp(-log_variance.numpy()), total)
        np.testing.assert_allclose(mean.numpy(), (precisions * means.numpy()[:, :2]).sum(axis=1) / total)


def test_a_product_is_the_normalised_product_of_densities() -> None:
    grid = np.linspace(-12, 12, 20001)
    experts = [(0.7, 0.4), (-1.1, 1.9)]
    density = stats.norm.pdf(grid) * np.prod([stats.norm.pdf(grid, m, np.sqrt(v)) for m, v in experts], axis=0)
    density /= density.sum()
    means, variances = (torch.tensor([[[pair[i]] for pair in experts]], dtype=torch.float64) for i in (0, 1))
    mean, log_variance = product((means, variances.log()), torch.ones(1, 2, dtype=torch.bool), prior=True)
    np.testing.assert_allclose(mean.item(), (grid * density).sum(), atol=1e-6)
    np.testing.assert_allclose(log_variance.exp().item(), (grid**2 * density).sum() - mean.item() ** 2, atol=1e-6)


def test_a_product_of_nothing_is_the_prior() -> None:
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    for prior in (True, False):
        mean, log_variance = product((torch.randn(2, 3, 4), torch.randn(2, 3, 4)), nothing, prior=prior)
        assert not mean.any()
        assert not log_variance.any()


def test_density_and_divergence_are_torchs_own() -> None:
    mean, log_variance, values = torch.randn(3, 6, 4, dtype=torch.float64).unbind()
    normal = torch.distributions.Normal(mean, torch.exp(log_variance / 2))
    standard = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    torch.testing.assert_close(log_normal(values, (mean, log_variance)), normal.log_prob(values).sum(dim=1))
    found = divergence((mean, log_variance))
    torch.testing.assert_close(found, torch.distributions.kl_divergence(normal, standard).sum(dim=1))


def test_every_subset_of_what_is_present_is_as_likely() -> None:
    torch.manual_seed(0)
    present = torch.tensor([[True, False, True, True]]).repeat(70_000, 1)
    codes = random_subsets(present).long() @ torch.tensor([1, 2, 4, 8])
    found, counts = torch.unique(codes, return_counts=True)
    assert found.tolist() == [1, 4, 5, 8, 9, 12, 13]
    np.testing.assert_allclose(counts / len(present), 1 / 7, atol=0.006)


def test_the_fused_point_is_the_posteriors_mean() -> None:
    inputs, present = batch()
    for posterior in POSTERIORS:
        model = network(posterior)
        points = [encoder(values) for encoder, values in zip(model.encoders, inputs, strict=True)]
        means, log_variances = (part.detach() for part in torch.stack(points, dim=1).chunk(2, dim=2))
        if posterior == "mixture":
            expected = torch.stack([means[i, row].mean(dim=0) for i, row in enumerate(present)])
        else:
            expected, _ = product((means, log_variances), present, prior=posterior == "product")
        torch.testing.assert_close(model.fused(points, present), expected)


# The loss


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("filling", [7.0, float("nan"), float("inf")])
def test_what_stands_in_the_place_of_a_missing_modality_changes_nothing(posterior: str, filling: float) -> None:
    model = network(posterior)
    inputs, present = batch()
    expected = loss_of(model, inputs, present)
    expected.backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad()
    other = [torch.where(present[:, [m]], values, filling) for m, values in enumerate(inputs)]
    found = loss_of(model, other, present)
    found.backward()
    assert torch.isfinite(found)
    assert torch.equal(found, expected)
    again = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert all(torch.equal(left, right) for left, right in zip(gradients, again, strict=True))


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_an_absent_modality_gets_no_gradient(posterior: str) -> None:
    model = network(posterior)
    inputs, present = batch()
    present[:, 1] = False
    present[:, 0] = True
    loss_of(model, inputs, present).backward()
    for parts, m in ((model.encoders, 1), (model.decoders, 1)):
        assert all(parameter.grad is None or not parameter.grad.any() for parameter in parts[m].parameters())
    assert any(parameter.grad.any() for parameter in model.encoders[0].parameters())


def test_the_loss_is_a_bound_on_the_likelihood() -> None:
    inputs, present = batch()
    for posterior in ("mixture", "product-mixture"):
        model = network(posterior)
        with torch.no_grad():
            experts = torch.stack(
                [encoder(values) for encoder, values in zip(model.encoders, inputs, strict=True)], dim=1
            ).chunk(2, dim=2)
            torch.manual_seed(0)
            bound = -torch.stack([model.negative_bound(inputs, experts, present) for _ in range(400)]).mean(dim=0)
            exact = model.log_likelihood(inputs, present, 4000)
        assert (bound < exact + 0.1).all()


# A linear model, of which all is known


def linear(posterior: str) -> tuple[VaeNetwork, list[np.ndarray]]:
    """x_m = W_m z + b_m + noise; encoders that are each modality's own exact posterior, so far as one can be."""
    random = np.random.default_rng(0)
    model = network(posterior)
    loadings = []
    with torch.no_grad():
        for m, width in enumerate(WIDTHS):
            W, b = random.normal(size=(width, CODE)), random.normal(size=width)
            loadings.append(W)
            model.decoders[m] = nn.Linear(CODE, width)
            model.decoders[m].weight.copy_(torch.as_tensor(W))
            model.decoders[m].bias.copy_(torch.as_tensor(b))
            model.noise[m].copy_(torch.as_tensor(random.normal(size=width) * 0.3 - 0.5))
            variance = np.linalg.inv(np.eye(CODE) + (W.T / model.noise[m].exp().numpy()) @ W)
            slope = variance @ (W.T / model.noise[m].exp().numpy())
            encoder = nn.Linear(width, 2 * CODE)
            encoder.weight.copy_(torch.as_tensor(np.vstack([slope, np.zeros_like(slope)])))
            spread = np.log(np.diag(variance))
            encoder.bias.copy_(torch.as_tensor(np.concatenate([-slope @ b, spread])))
            model.encoders[m] = encoder
    return model, loadings


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_the_sampled_likelihood_is_the_exact_one_of_a_linear_model(posterior: str) -> None:
    model, loadings = linear(posterior)
    random = np.random.default_rng(1)
    rows = 12
    code = random.normal(size=(rows, CODE))
    inputs, means, covariances = [], [], []
    for m, W in enumerate(loadings):
        b, noise = model.decoders[m].bias.detach().numpy(), model.noise[m].detach().exp().numpy()
        inputs.append(torch.as_tensor(code @ W.T + b + random.normal(size=(rows, len(b))) * np.sqrt(noise)).float())
        means.append(b)
        covariances.append(noise)
    _, present = batch(rows)
    with torch.no_grad():
        torch.manual_seed(0)
        found = model.log_likelihood(inputs, present, 20_000).numpy()
    for row in range(rows):
        there = np.flatnonzero(present[row].numpy())
        W = np.vstack([loadings[m] for m in there])
        covariance = W @ W.T + np.diag(np.concatenate([covariances[m] for m in there]))
        x = np.concatenate([inputs[m][row].numpy() for m in there])
        exact = stats.multivariate_normal.logpdf(x, np.concatenate([means[m] for m in there]), covariance)
        assert found[row] == pytest.approx(exact, abs=0.15), there


# As a fusion method


def crossed(rows: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """`a` holds two signs, `b` their product: a linear map of `a` tells at most three corners of four apart."""
    random = np.random.default_rng(seed)
    signs = random.choice([-1.0, 1.0], size=(rows, 2))
    side = signs.prod(axis=1)
    a = np.repeat(signs, 3, axis=1) + 0.3 * random.normal(size=(rows, 6))
    b = side[:, None] * np.array([1.0, -1.0, 1.0, 1.0]) + 0.3 * random.normal(size=(rows, 4))
    return {"a": a, "b": b}, (side > 0).astype(int)


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_a_missing_modality_is_filled_in_where_ridge_regression_cannot(posterior: str) -> None:
    (views, codes), (held, truth) = crossed(800, 0), crossed(300, 1)
    judge = LogisticRegression().fit(views["b"], codes)
    # Nothing but the views is learned from: the labels are noise.
    noise = np.random.default_rng(2).integers(0, 2, len(codes))
    model = VaeFusion(
        posterior=posterior, dim=4, hidden=64, epochs=60, patience=60, learning_rate=1e-2, generation=10.0
    ).fit(views, noise)
    filled = model.fill_in({"a": held["a"]})
    np.testing.assert_array_equal(filled["a"], held["a"])
    assert judge.score(filled["b"], truth) > 0.95
    missing = Views({"a": held["a"], "b": View.absent(len(truth), (4,))})
    ridge = Imputer("ridge").fit(Views(views), np.ones(len(codes))).filled(missing)
    assert judge.score(ridge["b"].values, truth) < 0.8


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_learning_raises_the_likelihood_of_rows_that_were_not_seen(posterior: str) -> None:
    train, held = made(300, 0, 0.2), made(100, 1, 0.2)
    settings = {**QUICK, "patience": 50}
    short = VaeFusion(posterior=posterior, dim=4, hidden=16, **{**settings, "epochs": 1})
    long = VaeFusion(
        posterior=posterior, dim=4, hidden=16, **{**settings, "epochs": 40, "patience": 40}, generation=5.0
    )
    found = [
        model.fit(train.views, train.labels, validation=train).log_likelihood(held.views, samples=200).mean()
        for model in (short, long)
    ]
    assert found[1] > found[0] + 0.5


def test_what_a_row_does_not_have_has_no_likelihood() -> None:
    train = made(100, 0, 0.2)
    model = VaeFusion(dim=4, hidden=8, **QUICK).fit(train.views, train.labels)
    nothing = train.views.without(*train.views)
    assert not model.log_likelihood(nothing).any()
    assert np.isnan(model.fill_in(nothing)["image"]).all()
    alone = model.log_likelihood(train.views.only(["image"]), samples=50)
    np.testing.assert_array_equal(alone != 0, train.views["image"].present)
