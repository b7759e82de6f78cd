"""The variational bound against closed forms, the chain that it bounds, and the likelihood by the flow."""

import math

import pytest
import torch
from scipy.stats import multivariate_normal

from memlib import noise, sample
from memlib.analytic import GaussianMixture
from memlib.errors import Refused
from memlib.likelihood import log_likelihood, prior, variational_bound
from memlib.papers.synthesis.chain import log_density

MIXTURE = GaussianMixture(
    torch.tensor([[-2.0], [0.4], [2.0]]).double(), torch.tensor([0.3, 0.5, 0.2]), std=torch.tensor([0.3, 0.6, 0.2])
)
SPREAD = 1.6


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Signs:
    """Noise +1, then -1, in turns: exact for the expectation of a square in one dimension, whatever the grid."""

    def __init__(self, levels):
        self.calls, self.levels = 0, levels

    def __call__(self, x):
        self.calls += 1
        return torch.ones_like(x) if (self.calls - 1) // self.levels % 2 == 0 else -torch.ones_like(x)


@pytest.mark.parametrize("std", [0.5, 2.0])
def test_one_gaussian_is_in_closed_form(std):
    """D(x) = c x, so E|x0 - D|^2 = (1 - c)^2 x0^2 + c^2 sigma^2, and signs have these moments exactly."""
    x0 = torch.linspace(-3, 3, 7).double()[:, None]
    grid = [5.0, 2.0, 0.7, 0.1]
    found = variational_bound(GaussianMixture(torch.zeros(1, 1).double(), std=std), x0, grid, Signs(4), draws=2)
    square, error = x0[:, 0] ** 2, []
    for sigma in grid:
        c = std**2 / (std**2 + sigma**2)
        error.append((1 - c) ** 2 * square + c**2 * sigma**2)
    steps = [(1 / s**2 - 1 / t**2) / 2 * e for t, s, e in zip(grid, grid[1:], error, strict=False)]
    torch.testing.assert_close(found.prior, square / (2 * 25.0))
    torch.testing.assert_close(found.steps, torch.stack(steps, 1))
    torch.testing.assert_close(found.reconstruction, error[-1] / 0.02 + 0.5 * math.log(2 * math.pi * 0.01))
    torch.testing.assert_close(found.value, found.prior + found.steps.sum(1) + found.reconstruction)


def test_a_step_is_the_divergence_of_the_bridge_from_the_step_of_the_sampler():
    """KL of two Gaussians of one variance, with the means and the variance that `sample.ancestral` uses."""
    x0, high, low = torch.tensor([[0.3, -1.0]]).double(), 1.5, 0.6
    toy = GaussianMixture(torch.tensor([[1.0, 0.0], [-1.0, 0.5]]).double(), std=0.4)
    n = torch.tensor([[0.7, -0.2]]).double()
    found = variational_bound(toy, x0, [high, low], lambda x: n)
    x = x0 + high * n
    to_model = sample.ancestral(toy, x, torch.tensor([high, low]).double(), eta=1.0, noise=torch.zeros_like)
    to_truth = (low / high) ** 2 * x + (1 - (low / high) ** 2) * x0
    variance = low**2 * (high**2 - low**2) / high**2
    torch.testing.assert_close(found.steps[:, 0], (to_model - to_truth).square().sum(1) / (2 * variance))


@pytest.mark.parametrize("count", [2, 4, 12])
def test_it_bounds_the_density_of_its_own_chain_at_every_point(count):
    x0 = torch.linspace(-3, 3, 41).double()[:, None]
    grid = noise.ve(count, 0.1, 10.0)
    for denoiser in (MIXTURE, lambda x, sigma: 0.8 * MIXTURE(x, sigma) + 0.1):  # and one that is wrong
        drawn = variational_bound(denoiser, x0.repeat(400, 1), grid, noise.noise_from(generator()))
        bound = drawn.value.view(400, -1)
        slack = bound.mean(0) + log_density(denoiser, x0, grid, SPREAD)
        assert (slack + 4 * bound.std(0) / 20 > 0).all()
        assert slack.mean() > 0.01  # the chain is coarse: the bound is not its density


def test_the_chain_of_a_gaussian_is_gaussian_and_every_density_sums_to_one():
    """All steps of a linear denoiser are linear: the variance follows by hand."""
    std, grid = 0.8, [4.0, 1.5, 0.5, 0.25]
    variance = grid[0] ** 2
    for level, after in zip(grid, [*grid[1:], 0.0], strict=True):
        c, kept = std**2 / (std**2 + level**2), (after / level) ** 2
        variance = (kept + (1 - kept) * c) ** 2 * variance + (after**2 * (1 - kept) if after else level**2)
    x0 = torch.linspace(-6, 6, 1001).double()[:, None]
    levels = torch.tensor(grid).double()
    found = log_density(GaussianMixture(torch.zeros(1, 1).double(), std=std), x0, levels, std)
    expected = torch.tensor(multivariate_normal(0, variance).pdf(x0))
    torch.testing.assert_close(found.exp(), expected, atol=1e-9, rtol=0)
    of_mixture = log_density(MIXTURE, x0, noise.ve(8, 0.1, 10.0), SPREAD)
    assert float(torch.trapezoid(of_mixture.exp(), x0[:, 0])) == pytest.approx(1, abs=1e-8)


def mean_gap(grid):
    """E of the bound minus the entropy of the mixture, by quadrature, from its density alone.

    Stein and Tweedie: E|x0 - D|^2 = sigma^2 - sigma^4 E|score|^2.
    """
    line = torch.linspace(-1, 1, 20_001).double()

    def integrals(sigma):
        x = line * 9 * math.hypot(SPREAD, sigma)
        log_p = MIXTURE.log_prob(x[:, None], sigma)
        density, score = log_p.exp(), torch.gradient(log_p, spacing=(x,))[0]
        return [float(torch.trapezoid(density * part, x)) for part in (score**2, -log_p, x**2)]

    lost = [sigma**2 - sigma**4 * integrals(sigma)[0] for sigma in grid]
    weights = [(1 / s**2 - 1 / t**2) / 2 for t, s in zip(grid, grid[1:], strict=False)] + [1 / (2 * grid[-1] ** 2)]
    _, entropy, square = integrals(0.0)
    paid = sum(w * e for w, e in zip(weights, lost, strict=True)) + 0.5 * math.log(2 * math.pi * grid[-1] ** 2)
    return square / (2 * grid[0] ** 2) + paid - entropy


def test_a_finer_grid_approaches_the_exact_density_and_the_likelihood_of_the_flow():
    x0, _ = MIXTURE.sample(1000, generator())
    exact = MIXTURE.log_prob(x0)
    flow = log_likelihood(MIXTURE, x0[:50], 1e-3, 50.0, terminal=lambda x: MIXTURE.log_prob(x, 50.0)).value
    gaps = []
    for count in (8, 32, 128):
        grid = noise.ve(count, 0.02, 20.0)
        bound = variational_bound(MIXTURE, x0, grid, noise.noise_from(generator(1))).value
        gap = bound + exact
        gaps.append(mean_gap(grid[:-1].tolist()))
        assert abs(float(gap.mean()) - gaps[-1]) < 4 * float(gap.std()) / 1000**0.5
        torch.testing.assert_close(bound[:50] + flow, gap[:50], atol=2e-3, rtol=0)
    assert all(after < before / 3 for before, after in zip(gaps, gaps[1:], strict=False))
    assert 0 < mean_gap(noise.ve(2048, 0.02, 20.0)[:-1].tolist()) < 0.02  # equality in the limit


def test_a_given_terminal_is_used_and_the_default_is_the_prior_of_the_chain():
    x0 = torch.tensor([[0.5], [-1.0]]).double()
    known = variational_bound(MIXTURE, x0, [3.0, 1.0], noise.noise_from(generator()))
    many = x0.repeat(20_000, 1)
    same = variational_bound(MIXTURE, many, [3.0, 1.0], noise.noise_from(generator()), 1, prior(3.0))
    torch.testing.assert_close(same.prior.view(-1, 2).mean(0), known.prior, atol=0.03, rtol=0)
    tight = variational_bound(
        MIXTURE, x0, [3.0, 1.0], noise.noise_from(generator()), 2, lambda x: MIXTURE.log_prob(x, 3.0)
    )
    assert not torch.allclose(tight.prior, known.prior, atol=0.05)
    torch.testing.assert_close(tight.reconstruction.shape, known.reconstruction.shape)


def test_images_any_dtype_and_a_last_zero():
    x0 = torch.randn(3, 1, 4, 4, generator=generator())
    one = variational_bound(lambda x, s: x / (1 + s**2), x0, noise.ve(5, 0.1, 5.0), noise.seeded([7, 8, 9]))
    cut = variational_bound(lambda x, s: x / (1 + s**2), x0, noise.ve(5, 0.1, 5.0)[:-1], noise.seeded([7, 8, 9]))
    alone = variational_bound(lambda x, s: x / (1 + s**2), x0[1:2], noise.ve(5, 0.1, 5.0), noise.seeded([8]))
    assert one.value.shape == (3,) and one.steps.shape == (3, 4) and one.value.dtype == torch.float64
    assert torch.equal(one.value, cut.value) and one.stderr.isnan().all()
    torch.testing.assert_close(alone.value, one.value[1:2])


def test_the_standard_error_is_that_of_the_draws():
    x0 = torch.full((300, 1), 0.5).double()
    found = variational_bound(MIXTURE, x0, noise.ve(6, 0.1, 10.0), noise.noise_from(generator()), 20)
    assert 0.8 < float(found.value.std() / found.stderr.square().mean().sqrt()) < 1.25


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((torch.zeros(2, 1, dtype=torch.long), [2.0, 1.0]), "floating point"),
        ((torch.zeros(2), [2.0, 1.0]), "shape"),
        ((torch.zeros(2, 1), [1.0, 2.0]), "rises"),
        ((torch.zeros(2, 1), [0.0]), "no level above 0"),
        ((torch.full((2, 1), math.nan), [2.0, 1.0]), "NaN or infinite at sigma=2"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, says):
    with pytest.raises(Refused, match=says):
        variational_bound(lambda x, sigma: x, *arguments, torch.randn_like)


def test_other_refusals():
    x0 = torch.zeros(2, 1).double()
    with pytest.raises(Refused, match="1 draw or more, not 0"):
        variational_bound(MIXTURE, x0, [2.0, 1.0], torch.randn_like, 0)
    with pytest.raises(Refused, match="one log-density per sample"):
        variational_bound(MIXTURE, x0, [2.0, 1.0], torch.randn_like, 1, lambda x: x)
    with pytest.raises(Refused, match="over a line"):
        log_density(MIXTURE, torch.zeros(2, 2), [2.0, 1.0], 1.0)
    with pytest.raises(Refused, match="give more points"):
        log_density(MIXTURE, x0, noise.ve(50, 0.01, 50.0), SPREAD, points=200)
    empty = variational_bound(lambda x, sigma: x, x0[:0], [2.0, 1.0], torch.randn_like)
    assert empty.value.shape == (0,)
