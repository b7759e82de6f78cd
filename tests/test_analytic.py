"""Mixtures against torch.distributions, scikit-learn and direct float64 sums; Empirical where float32 would fail."""

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from memlib.analytic import Empirical, GaussianMixture
from memlib.errors import Refused


def random_mixture(full: bool):
    g = torch.Generator().manual_seed(3)
    means = torch.randn(4, 3, generator=g, dtype=torch.float64)
    weights = torch.rand(4, generator=g, dtype=torch.float64) + 0.1
    root = torch.randn(4, 3, 3, generator=g, dtype=torch.float64)
    std = torch.rand(4, generator=g, dtype=torch.float64) + 0.2
    if full:
        covariances = root @ root.mT + 0.05 * torch.eye(3)
        return GaussianMixture(means, weights, covariances=covariances), means, weights, covariances
    return GaussianMixture(means, weights, std=std), means, weights, std[:, None, None] ** 2 * torch.eye(3)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("sigma", [0.0, 0.3, 5.0])
def test_mixture_against_torch_distributions(full, sigma):
    mixture, means, weights, covariances = random_mixture(full)
    noised = MultivariateNormal(means, covariances + sigma**2 * torch.eye(3))
    want = MixtureSameFamily(Categorical(weights), noised)
    x = 2 * torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(mixture.log_prob(x, sigma), want.log_prob(x))
    bayes = (weights.log() + noised.log_prob(x[:, None])).softmax(1)
    torch.testing.assert_close(mixture.posterior(x, sigma), bayes)
    leaf = x.clone().requires_grad_()  # Tweedie: D = x + sigma^2 grad log p
    slope = torch.autograd.grad(want.log_prob(leaf).sum(), leaf)[0]
    torch.testing.assert_close(mixture(x, sigma), x + sigma**2 * slope)


def test_levels_per_sample_and_sample_shape():
    g = torch.Generator().manual_seed(0)
    mixture = GaussianMixture(torch.randn(6, 1, 4, 4, generator=g, dtype=torch.float64), std=0.1)
    x, levels = torch.randn(5, 1, 4, 4, generator=g, dtype=torch.float64), torch.tensor([0.1, 0.5, 1.0, 5.0, 20.0])
    batch = mixture(x, levels)
    assert batch.shape == x.shape
    for i in range(5):
        torch.testing.assert_close(batch[i : i + 1], mixture(x[i : i + 1], float(levels[i])))


@pytest.mark.parametrize("full", [False, True])
def test_samples_have_the_moments_of_the_mixture(full):
    mixture, means, weights, covariances = random_mixture(full)
    x, label = mixture.sample(40_000, torch.Generator().manual_seed(0))
    shares = torch.bincount(label, minlength=4) / 40_000
    torch.testing.assert_close(shares.double(), weights / weights.sum(), rtol=0, atol=0.012)
    for k in range(4):
        torch.testing.assert_close(x[label == k].mean(0), means[k], rtol=0, atol=0.15)
        torch.testing.assert_close(x[label == k].T.cov(), covariances[k], rtol=0.1, atol=0.1)


def direct(points, x, sigma):
    """The posterior mean by its definition, exact differences, float64, one query at a time."""
    points, x = points.double(), x.double()
    logits = torch.stack([-(row - points).square().sum(1) / (2 * sigma**2) for row in x])
    return logits.softmax(1) @ points


@pytest.mark.parametrize("size,scale", [(2, 2.0), (768, 0.5)])
@pytest.mark.parametrize("sigma", [80.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.01, 1e-3, 1e-4])
def test_empirical_in_float32_with_near_duplicates(size, scale, sigma):
    g = torch.Generator().manual_seed(size)
    points = scale * torch.randn(1500, size, generator=g)
    points = torch.cat([points, points[:100] + 1e-4 * torch.randn(100, size, generator=g)])
    x = points[50:114] + sigma * torch.randn(64, size, generator=g)
    assert (Empirical(points)(x, sigma) - direct(points, x, sigma)).abs().max() < 1e-5


def test_empirical_on_uncentred_data_and_many_survivors():
    """Far from the origin, and with more points alive than are re-ranked one by one: a cloud as tight as the noise."""
    g = torch.Generator().manual_seed(5)
    points = 100 + torch.cat([0.01 * torch.randn(300, 64, generator=g), torch.randn(300, 64, generator=g)])
    for sigma in (0.003, 0.05, 1.0):
        x = points[:20] + sigma * torch.randn(20, 64, generator=g)
        assert (Empirical(points)(x, sigma) - direct(points, x, sigma)).abs().max() < 1e-5 * 100


def test_empirical_never_holds_queries_times_points_times_coordinates():
    sizes = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            sizes.extend(t.numel() for t in torch.utils._pytree.tree_leaves(out) if isinstance(t, torch.Tensor))
            return out

    g = torch.Generator().manual_seed(0)
    points, x = torch.randn(700, 300, generator=g), torch.randn(90, 300, generator=g)
    for sigma in (0.01, 0.5, 30.0):
        with Watch():
            Empirical(points)(x, sigma)
    assert max(sizes) < 90 * 700 * 300 / 8


def test_empirical_at_zero_noise_is_the_nearest_point():
    points = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0 + 1e-4]])
    x = torch.tensor([[0.2, 0.1], [1.0, 1.0], [1.0, 1.1]])
    assert torch.equal(Empirical(points)(x, 0.0), points)
    with pytest.raises(ValueError, match="no density"):
        Empirical(points).log_prob(x)


def test_not_a_number_in_gives_not_a_number_out():
    x = torch.tensor([[0.0, float("nan")], [1.0, 1.0]])
    got = Empirical(torch.eye(2))(x, 0.1)
    assert got[0].isnan().any() and got.shape == x.shape


def test_empirical_is_differentiable_on_every_path():
    g = torch.Generator().manual_seed(0)
    points = torch.randn(60, 3, generator=g, dtype=torch.float64)
    x = torch.randn(4, 3, generator=g, dtype=torch.float64, requires_grad=True)
    for sigma in (0.05, 0.5, 5.0):  # few survivors, some, all
        assert torch.autograd.gradcheck(lambda v, s=sigma: Empirical(points)(v, s), x)


def test_wrong_mixtures_are_refused():
    means = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="2 positive weights"):
        GaussianMixture(means, torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match=r"expected \(2, 3, 3\)"):
        GaussianMixture(means, covariances=torch.eye(3))


def test_flat_components_are_sampled_in_their_plane():
    """A rank-1 covariance in float32 has eigenvalues below 0 by rounding: sampling it gave NaN."""
    for seed in range(20):
        v = torch.randn(2, 5, 1, generator=torch.Generator().manual_seed(seed))
        flat = GaussianMixture(torch.zeros(2, 5), covariances=v @ v.mT)
        x, label = flat.sample(4000, torch.Generator().manual_seed(1))
        assert x.isfinite().all()
        along = v[label, :, 0] / v[label, :, 0].norm(dim=1, keepdim=True)
        assert (x - (x * along).sum(1, keepdim=True) * along).abs().max() < 5e-3
        torch.testing.assert_close(x[label == 0].T.cov(), (v @ v.mT)[0], rtol=0.2, atol=0.2)
        with pytest.raises(Refused, match="no density"):
            flat.log_prob(x[:3])


def test_flat_components_at_every_level():
    v = torch.tensor([[1.0], [2.0], [-1.0]], dtype=torch.float64)
    flat = GaussianMixture(torch.ones(1, 3, dtype=torch.float64), covariances=(v @ v.mT)[None])
    x = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    want = MultivariateNormal(torch.ones(3).double(), v @ v.mT + 0.25 * torch.eye(3))
    torch.testing.assert_close(flat.log_prob(x, 0.5), want.log_prob(x))
    projected = 1 + (x - 1) @ v @ v.mT / v.square().sum()  # at sigma = 0, the nearest point of the line
    torch.testing.assert_close(flat(x, 0.0), projected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"covariances": torch.tensor([[[1.0, 2.0], [2.0, 1.0]]])}, "no negative eigenvalue, and one of these has -1"),
        ({"covariances": -torch.eye(2)[None]}, "no negative eigenvalue"),
        ({"covariances": torch.tensor([[[1.0, 0.5], [0.0, 1.0]]])}, "symmetric, and one of these is not"),
        ({"covariances": torch.full((1, 2, 2), torch.nan)}, "covariances are finite, not .* 4 of them NaN"),
        ({"std": -0.1}, "one number from 0, or 1 of them, not -0.1"),
        ({"std": float("nan")}, "one number from 0"),
        ({"std": torch.ones(3)}, "one number from 0, or 1 of them"),
        ({"weights": torch.tensor([float("inf")])}, "1 positive weights"),
        ({"weights": torch.tensor([float("nan")])}, "1 positive weights"),
        ({"means": torch.tensor([[0.0, float("nan")]])}, "means of a mixture are finite floats.* 1 of them NaN"),
        ({"means": torch.zeros(0, 2)}, "K >= 1"),
    ],
)
def test_what_is_no_mixture_is_refused(given, sentence):
    with pytest.raises(Refused, match=sentence):
        GaussianMixture(**{"means": torch.zeros(1, 2), **given})
