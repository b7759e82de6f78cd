"""Likelihoods against closed forms, and against SciPy's solver on a field written in NumPy."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from memlib import likelihood
from memlib.analytic import GaussianMixture
from memlib.errors import Refused
from memlib.likelihood import LogLikelihood, bits_per_dim, dequantise, log_likelihood, prior


def random_mixture(seed: int, tight: bool, dtype: torch.dtype = torch.float64) -> tuple[GaussianMixture, torch.Tensor]:
    """A centred 2-d mixture and 96 draws of it, half of them moved to twice their distance from their mean."""
    generator = torch.Generator().manual_seed(seed)
    count = int(torch.randint(2, 7, (1,), generator=generator))
    means = 3 * torch.randn(count, 2, generator=generator, dtype=dtype)
    weights = torch.rand(count, generator=generator, dtype=dtype) + 0.1
    means = means - (weights / weights.sum()) @ means
    root = torch.randn(count, 2, 2, generator=generator, dtype=dtype)
    shape = {"std": 0.1} if tight else {"covariances": 0.3 * root @ root.mT + 0.01 * torch.eye(2, dtype=dtype)}
    mixture = GaussianMixture(means, weights, **shape)
    x, label = mixture.sample(96, generator)
    x[48:] = means[label[48:]] + 2 * (x[48:] - means[label[48:]])
    return mixture, x + 0.002 * torch.randn(x.shape, generator=generator, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("tight", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_sample_of_a_mixture_is_within_a_thousandth_of_a_nat(seed, tight, dtype):
    mixture, x = random_mixture(seed, tight, dtype)
    value, stderr = log_likelihood(mixture, x, 0.002, 80.0, terminal=lambda end: mixture.log_prob(end, 80.0))
    assert value.dtype == dtype
    assert (value - mixture.log_prob(x, 0.002)).abs().max() < 1e-3
    assert (stderr == 0).all()


def test_the_value_is_the_density_at_sigma_min():
    mixture, x = random_mixture(3, tight=True)
    value = log_likelihood(mixture, x, 0.5, 80.0, terminal=lambda end: mixture.log_prob(end, 80.0)).value
    torch.testing.assert_close(value, mixture.log_prob(x, 0.5), atol=1e-3, rtol=0)
    assert (value - mixture.log_prob(x, 0.002)).abs().median() > 0.1


def gaussian(size: int) -> tuple[torch.Tensor, GaussianMixture, torch.Tensor]:
    generator = torch.Generator().manual_seed(size)
    root = torch.randn(size, size, generator=generator, dtype=torch.float64) / math.sqrt(size)
    covariance = root @ root.T + 0.05 * torch.eye(size, dtype=torch.float64)
    mixture = GaussianMixture(torch.zeros(1, size, dtype=torch.float64), covariances=covariance[None])
    return covariance, mixture, mixture.sample(32, generator)[0]


def test_a_gaussian_with_the_default_terminal():
    covariance, denoiser, x = gaussian(6)
    value = log_likelihood(denoiser, x, 1e-3, 1000.0).value
    expected = multivariate_normal(np.zeros(6), covariance + 1e-6 * torch.eye(6)).logpdf(x)
    np.testing.assert_allclose(value, expected, atol=1e-3)


def test_a_gaussian_in_64_dimensions_to_a_thousandth_of_a_bit_per_dimension():
    covariance, denoiser, x = gaussian(64)
    for dtype in (torch.float64, torch.float32):
        value = log_likelihood(denoiser, x[:4].to(dtype), 1e-3, 1000.0, tol=1e-4).value
        expected = multivariate_normal(np.zeros(64), covariance + 1e-6 * torch.eye(64)).logpdf(x[:4])
        off = bits_per_dim(value, 64) - bits_per_dim(torch.tensor(expected), 64)
        assert off.abs().max() < 1e-3


def test_scipy_agrees_on_a_field_written_apart():
    means, std, weights = np.array([[-1.5, 0.5], [1.0, 1.0], [0.5, -1.5]]), 0.3, np.array([0.2, 0.5, 0.3])
    x = np.random.default_rng(0).normal(size=(5, 2))

    def field(sigma: float, state: np.ndarray) -> np.ndarray:
        variance = std**2 + sigma**2
        logits = np.log(weights) - ((state[:2] - means) ** 2).sum(1) / (2 * variance)
        share = np.exp(logits - logsumexp(logits))
        centre = share @ means
        score = (centre - state[:2]) / variance
        laplacian = (share @ (means**2).sum(1) - centre @ centre) / variance**2 - 2 / variance
        return np.append(-sigma * score, -sigma * laplacian)

    expected = []
    for point in x:
        end = solve_ivp(field, (0.01, 50.0), np.append(point, 0.0), method="RK45", rtol=1e-10, atol=1e-10).y[:, -1]
        expected.append(end[2] + multivariate_normal(np.zeros(2), 2500 * np.eye(2)).logpdf(end[:2]))
    mixture = GaussianMixture(torch.tensor(means), torch.tensor(weights), std=std)
    value = log_likelihood(mixture, torch.tensor(x), 0.01, 50.0, terminal=prior(50.0), tol=1e-7).value
    np.testing.assert_allclose(value, expected, atol=2e-6)


def test_hutchinson_is_unbiased_and_its_error_bar_honest():
    _, denoiser, x = gaussian(10)
    exact = log_likelihood(denoiser, x, 0.01, 100.0).value
    value, stderr = log_likelihood(denoiser, x, 0.01, 100.0, probes=24)
    deviation = (value - exact) / stderr
    assert deviation.abs().max() < 4
    assert 0.6 < deviation.square().mean().sqrt() < 1.5


def test_one_probe_has_no_error_bar_and_a_diagonal_trace_needs_none():
    diagonal = torch.diag(torch.tensor([0.1, 1.0, 2.0], dtype=torch.float64))
    denoiser = GaussianMixture(torch.zeros(1, 3, dtype=torch.float64), covariances=diagonal[None])
    x = torch.ones(2, 3, dtype=torch.float64)
    exact = log_likelihood(denoiser, x, 0.01, 100.0)
    one, four = (log_likelihood(denoiser, x, 0.01, 100.0, probes=p) for p in (1, 4))
    assert one.stderr.isnan().all()
    torch.testing.assert_close(one.value, exact.value)  # v' diag v is the trace for signs v, and for no other normal
    assert (four.stderr < 1e-9).all()


def test_own_probes_are_used_and_drawn_ones_do_not_depend_on_the_batch():
    _, denoiser, x = gaussian(6)
    both = log_likelihood(denoiser, x[:8], 0.1, 10.0, probes=2).value
    torch.testing.assert_close(both[:3], log_likelihood(denoiser, x[:3], 0.1, 10.0, probes=2).value, atol=1e-3, rtol=0)
    basis = math.sqrt(6) * torch.eye(6, dtype=torch.float64)[:, None].expand(6, 8, 6)  # their mean is the trace
    exact = log_likelihood(denoiser, x[:8], 0.1, 10.0).value
    torch.testing.assert_close(log_likelihood(denoiser, x[:8], 0.1, 10.0, basis).value, exact, atol=1e-3, rtol=0)


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.SiLU(), torch.nn.Conv2d(4, 1, 3, padding=1)
    return torch.nn.Sequential(*layers).double()


def test_images_in_evaluation_modes_leave_no_gradient():
    net, x = network(), torch.randn(3, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plain = log_likelihood(lambda y, sigma: net(y), x, 0.1, 10.0).value
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            inside = log_likelihood(lambda y, sigma: net(y), x.clone(), 0.1, 10.0).value
        torch.testing.assert_close(inside, plain, rtol=0, atol=0)
    assert not plain.requires_grad
    assert all(p.grad is None for p in net.parameters())


def test_what_vmap_cannot_take_is_differentiated_one_by_one():
    class Opaque(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.tanh()

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            slope = torch.from_numpy(1 - np.tanh(x.detach().numpy()) ** 2)
            return torch.from_numpy(grad.numpy() * slope.numpy())

    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    opaque = log_likelihood(lambda y, sigma: Opaque.apply(y), x, 0.1, 10.0, terminal=prior(10.0)).value
    known = log_likelihood(lambda y, sigma: y.tanh(), x, 0.1, 10.0, terminal=prior(10.0)).value
    torch.testing.assert_close(opaque, known)


def test_refusals_are_one_sentence(monkeypatch):
    x = torch.zeros(2, 3)

    def shrink(y, sigma):
        return y / (1 + sigma**2)

    def spoilt(y, sigma):
        return shrink(y, sigma) * (1.0 if sigma < 1 else math.nan)

    with pytest.raises(Refused, match="NaN or infinite at sigma=1"):
        log_likelihood(spoilt, x, 0.01, 10.0)
    with pytest.raises(Refused, match="NaN or infinite at sigma=0.01"):
        log_likelihood(shrink, x * math.nan, 0.01, 10.0)
    with pytest.raises(Refused, match="differentiable in x"):
        log_likelihood(lambda y, sigma: shrink(y, sigma).detach(), x, 0.01, 10.0)
    with pytest.raises(Refused, match="5000 VJPs an evaluation: give probes"):
        log_likelihood(shrink, torch.zeros(1, 5000), 0.01, 10.0)
    with pytest.raises(Refused, match="0 < sigma_min < sigma_max, not sigma_min=0.0"):
        log_likelihood(shrink, x, 0, 10.0)
    with pytest.raises(Refused, match="one log-density per sample"):
        log_likelihood(shrink, x, 0.01, 10.0, terminal=lambda end: end)
    with pytest.raises(Refused, match="probes for x0"):
        log_likelihood(shrink, x, 0.01, 10.0, torch.ones(2, 3))
    monkeypatch.setattr(likelihood, "MAX_EVALUATIONS", 30)
    with pytest.raises(Refused, match="in 30 evaluations"):
        log_likelihood(lambda y, sigma: torch.sin(300 * y), x + 0.3, 0.01, 10.0)


@pytest.mark.parametrize(("bits", "low", "high"), [(8, -1.0, 1.0), (8, 0.0, 1.0), (5, -1.0, 1.0), (4, -3.0, 1.0)])
def test_a_uniform_density_over_the_cube_costs_its_bits(bits, low, high):
    nats = torch.full((2,), -12 * math.log(high - low), dtype=torch.float64)
    expected = torch.full_like(nats, bits)
    torch.testing.assert_close(bits_per_dim(nats, 12, bits, low, high), expected)


def test_bits_per_dim_by_hand():
    nats = LogLikelihood(torch.tensor([-3072 * math.log(2) * 0.5]), torch.tensor([3072 * math.log(2)]))
    value, stderr = bits_per_dim(nats, 3072, bits=8)
    torch.testing.assert_close(value, torch.tensor([7.5]))  # 7 is the offset of 8-bit data in [-1, 1]
    torch.testing.assert_close(stderr, torch.tensor([1.0]))
    torch.testing.assert_close(bits_per_dim(nats.value, 3072), torch.tensor([0.5]))


def test_dequantised_levels_fill_their_bins():
    levels = torch.arange(16).repeat_interleave(2000).reshape(100, 1, 16, 20)
    spread = dequantise(levels / 7.5 - 1, 4, torch.Generator().manual_seed(0))
    inside = (spread.double() + 1) / 2 * 16 - levels
    assert inside.min() >= -1e-6
    assert inside.max() <= 1 + 1e-6
    assert abs(inside.mean() - 0.5) < 0.01
    assert abs(inside.var() - 1 / 12) < 0.002
    with pytest.raises(Refused, match="do not hold 16 levels"):
        dequantise(torch.rand(3, 4), 4, torch.Generator())
    with pytest.raises(Refused, match="do not hold 16 levels"):
        dequantise(torch.full((3, 4), math.nan), 4, torch.Generator())
