"""Identities of the denoiser: Tweedie, the pair, guidance by a Bayes classifier, classifier-free guidance."""

import torch

from memlib import denoiser as dn
from memlib.analytic import GaussianMixture

torch.manual_seed(0)
MEANS = torch.randn(5, 3, dtype=torch.float64)
MIXTURE = GaussianMixture(MEANS, torch.tensor([0.1, 0.2, 0.3, 0.1, 0.3]), std=0.3)
X = torch.randn(16, 3, dtype=torch.float64)
LEVELS = torch.rand(16, dtype=torch.float64) + 0.1


def test_score_is_the_gradient_of_the_log_density():
    x = X.clone().requires_grad_()
    slope = torch.autograd.grad(MIXTURE.log_prob(x, LEVELS).sum(), x)[0]
    torch.testing.assert_close(dn.score(MIXTURE, X, LEVELS), slope, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(dn.eps(MIXTURE, X, LEVELS), -LEVELS[:, None] * slope, rtol=1e-9, atol=1e-9)


def test_songs_score_times_std_is_minus_eps_hat():
    """score_sde's loss is |score(x_t) std + z|^2 with x_t = alpha x0 + std z, in VP: the same pair."""
    alpha, sigma = 0.6, 0.8 / 0.6
    x0, z = X, torch.randn_like(X)
    x_t = alpha * x0 + 0.8 * z
    x = x_t.clone().requires_grad_()  # p_t(x_t) = p_sigma(x_t / alpha) alpha^-d
    score_t = torch.autograd.grad(MIXTURE.log_prob(x / alpha, sigma).sum(), x)[0]
    eps_hat, eps = dn.pair(MIXTURE, x0, sigma, lambda _: z)
    assert torch.equal(eps, z)
    torch.testing.assert_close(score_t * 0.8, -eps_hat, rtol=0, atol=1e-14)


def test_guidance_by_the_bayes_classifier_is_the_conditional_model():
    for k in range(5):
        guided = dn.guided(MIXTURE, lambda x, s, k=k: MIXTURE.posterior(x, s)[:, k].log(), 1.0)
        wanted = GaussianMixture(MEANS[k : k + 1], std=0.3)
        assert (guided(X, LEVELS) - wanted(X, LEVELS)).abs().max() < 4e-10


def test_guidance_weight_is_per_sample_and_zero_is_untouched():
    calls = []

    def log_p(x, sigma):
        calls.append(len(x))
        return -x.square().sum(1) / torch.where(x[:, 0] == X[0, 0], 0.0, 1.0)  # infinite slope in row 0

    weight = torch.arange(16.0)
    guided = dn.guided(MIXTURE, log_p, weight)(X, LEVELS)
    plain = MIXTURE(X, LEVELS)
    assert torch.equal(guided[0], plain[0])
    want = plain - (weight * LEVELS**2)[:, None] * 2 * X
    torch.testing.assert_close(guided[1:], want[1:], rtol=1e-12, atol=1e-12)
    assert calls == [16]
    assert torch.equal(dn.guided(MIXTURE, log_p, 0.0)(X, LEVELS), plain) and calls == [16]


def test_guidance_can_be_differentiated_through():
    guided = dn.guided(MIXTURE, lambda x, s: -0.5 * (x**2).sum(1), 2.0)
    x = X.clone().requires_grad_()
    got = torch.autograd.grad(guided(x, LEVELS).sum(), x)[0]
    plain = torch.autograd.grad(MIXTURE(x, LEVELS).sum(), x)[0]
    torch.testing.assert_close(got, plain - 2 * LEVELS[:, None] ** 2 * torch.ones_like(X))


def test_classifier_free_guidance_ends_and_overshoots():
    one, two = (lambda x, s: x + 1), (lambda x, s: x - 1)
    got = dn.classifier_free(one, two, torch.tensor([0.0, 1.0, 3.0]))(torch.zeros(3, 2), torch.tensor(1.0))
    assert got[:, 0].tolist() == [1.0, -1.0, -5.0]
