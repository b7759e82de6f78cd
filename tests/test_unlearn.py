"""Unlearning losses on a network, and their closed-form optima against brute force."""

import math

import pytest
import torch
from torch import nn

from memlib import losses, noise, train
from memlib.analytic import GaussianMixture
from memlib.denoiser import eps, pair, score
from memlib.errors import Refused
from memlib.papers import sgu
from memlib.random import keyed

D64 = {"dtype": torch.float64}
RETAIN = GaussianMixture(torch.tensor([[-2.0, -2.0], [2.0, 2.0]], **D64), torch.tensor([0.3, 0.7]), std=1.0)
FORGET = GaussianMixture(torch.tensor([[0.0, 0.0], [0.5, -1.0]], **D64), torch.tensor([0.6, 0.4]), std=0.8)
X = 1.5 * torch.randn(40, 2, generator=torch.Generator().manual_seed(0), **D64)
SIGMA = 0.2 + torch.rand(40, generator=torch.Generator().manual_seed(1), **D64)


def tilt(sigma):
    return 1 / (0.1 + sigma**2)


def posterior_moments(mixture, x, sigma, n=400_000):
    """E[eps | x] and E[eps eps^T | x] by importance sampling from the mixture: no derivative, no Tweedie."""
    x0, _ = mixture.sample(n, torch.Generator().manual_seed(5))
    e = (x - x0) / sigma
    weight = (-0.5 * e.square().sum(1)).softmax(0)
    return weight @ e, torch.einsum("n,ni,nj->ij", weight, e, e)


def test_the_moment_of_the_noise_is_that_of_the_posterior():
    near = 0.4 * X  # where many draws land
    moment, mean = sgu.noise_moment(FORGET, near, SIGMA), eps(FORGET, near, SIGMA)
    for i in (0, 7, 21):
        first, second = posterior_moments(FORGET, near[i], SIGMA[i])
        torch.testing.assert_close(mean[i], first, atol=0.02, rtol=0.02)
        torch.testing.assert_close(moment[i], second, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("alpha", [0.9, 0.5])
@pytest.mark.parametrize("name", ["obtuse", "bounded", "orthogonal"])
def test_optima_minimise_the_mixed_loss_at_every_point(name, alpha):
    """The loss at x as a function of e = eps_hat(x), from posterior moments of both sides, by Newton from autograd."""
    optimum, forget_loss = {
        "obtuse": (sgu.obtuse_optimum(RETAIN, FORGET, alpha, tilt), lambda e, m, M: e @ m),
        "bounded": (sgu.bounded_optimum(RETAIN, FORGET, alpha, 2.0, tilt), lambda e, m, M: e @ m + e @ e / 4.0),
        "orthogonal": (sgu.orthogonal_optimum(RETAIN, FORGET, alpha, tilt), lambda e, m, M: e @ M @ e),
    }[name]
    got = eps(optimum, X, SIGMA)
    p_g, p_f = RETAIN.log_prob(X, SIGMA).exp(), FORGET.log_prob(X, SIGMA).exp()
    m_g, m_f, big = eps(RETAIN, X, SIGMA), eps(FORGET, X, SIGMA), sgu.noise_moment(FORGET, X, SIGMA)
    for i in range(0, 40, 7):

        def mixed(e, i=i):
            keep = e @ e - 2 * e @ m_g[i]
            lose = tilt(SIGMA[i]) * forget_loss(e, m_f[i], big[i])
            return alpha * p_g[i] * keep + (1 - alpha) * p_f[i] * lose

        start = torch.zeros(2, **D64)
        slope = torch.func.grad(mixed)(start)
        curvature = torch.func.hessian(mixed)(start)
        assert torch.linalg.eigvalsh(curvature).min() > 0
        torch.testing.assert_close(got[i], -torch.linalg.solve(curvature, slope), rtol=1e-9, atol=1e-9)


def test_obtuse_leads_uphill_of_the_difference_of_the_densities():
    alpha = 0.8
    c = (1 - alpha) / (2 * alpha)
    leaf = X.clone().requires_grad_()
    retain, forget = RETAIN.log_prob(leaf, SIGMA).exp(), FORGET.log_prob(leaf, SIGMA).exp()
    want = torch.autograd.grad((retain - c * forget).sum(), leaf)[0] / retain.detach()[:, None]
    torch.testing.assert_close(score(sgu.obtuse_optimum(RETAIN, FORGET, alpha), X, SIGMA), want)


def test_the_limits_of_the_optima():
    plain = eps(RETAIN, X, SIGMA)
    for optimum in (sgu.obtuse_optimum, sgu.bounded_optimum, sgu.orthogonal_optimum):
        torch.testing.assert_close(eps(optimum(RETAIN, FORGET, 1.0), X, SIGMA), plain)
    far = eps(sgu.bounded_optimum(RETAIN, FORGET, 0.7, 1e7), X, SIGMA)
    torch.testing.assert_close(far, eps(sgu.obtuse_optimum(RETAIN, FORGET, 0.7), X, SIGMA), rtol=1e-4, atol=1e-6)
    longest = torch.maximum(plain.norm(dim=1), 3 * eps(FORGET, X, SIGMA).norm(dim=1))
    held = eps(sgu.bounded_optimum(RETAIN, FORGET, 0.05, 3.0), X, SIGMA).norm(dim=1)
    assert (held <= longest + 1e-9).all()
    shrunk = eps(sgu.orthogonal_optimum(RETAIN, FORGET, 0.3), X, SIGMA)
    assert (shrunk.norm(dim=1) <= plain.norm(dim=1)).all()  # it only shrinks ...
    assert ((shrunk * plain).sum(1) > 0).all()  # ... and never turns by a right angle


def test_one_optimum_by_training_nothing_but_a_table():
    """Stochastic: a free vector at one (x, sigma), trained on draws of both batches that landed there, finds it too."""
    sigma, x, alpha = torch.tensor(0.7, **D64), torch.tensor([[0.8, 0.9]], **D64), 0.6
    g, f = (data.sample(600_000, torch.Generator().manual_seed(3))[0] for data in (RETAIN, FORGET))
    e_g, e_f = (x - g) / sigma, (x - f) / sigma
    like_g, like_f = (torch.exp(-0.5 * e.square().sum(1)) / len(e) for e in (e_g, e_f))
    vector = torch.zeros(1, 2, **D64, requires_grad=True)
    keep = (like_g * losses.denoising(vector.expand_as(e_g), e_g)).sum()
    lose = (like_f * losses.orthogonal(vector.expand_as(e_f), e_f)).sum()
    value = alpha * keep + (1 - alpha) * lose
    slope = torch.autograd.grad(value, vector, create_graph=True)[0]
    curvature = torch.stack([torch.autograd.grad(s, vector, retain_graph=True)[0][0] for s in slope[0]])
    found = -torch.linalg.solve(curvature, slope[0].detach())
    want = eps(sgu.orthogonal_optimum(RETAIN, FORGET, alpha), x, sigma)[0]
    torch.testing.assert_close(found, want, rtol=0.02, atol=0.01)


# The gradient flow of every loss, on one network: which way it moves the forget batch, and that retain is not in it.

EVERY = {
    "obtuse": (losses.obtuse, "apart"),
    "obtuse_bounded": (losses.obtuse_bounded, "apart"),
    "alignment": (losses.alignment, "together"),
    "orthogonal": (losses.orthogonal, "right angle"),
    "orthogonal_elementwise": (losses.orthogonal_elementwise, "right angle"),
    "ascent": (losses.ascent, "apart"),
    "erase": (lambda eps_hat, true: losses.erase(eps_hat, true.roll(1, 0)), "right angle"),
}


class Small(nn.Module):
    """A denoiser that starts where the noise is partly known: D = 0.6 x + what the layers add."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 32), nn.SiLU(), nn.Linear(32, 6))

    def forward(self, x, sigma):
        return 0.6 * x + self.layers(x)


def everything():
    generator = torch.Generator().manual_seed(0)
    retain, forget = torch.randn(64, 6, generator=generator) + 2, 0.5 * torch.randn(64, 6, generator=generator)
    torch.manual_seed(0)
    return retain, forget, Small()


def angle(net, forget):
    hat, true = pair(net, forget, 1.0, noise.seeded(range(64)))
    return nn.functional.cosine_similarity(hat, true)


@pytest.mark.parametrize("name", EVERY)
def test_every_loss_moves_the_forget_batch_as_it_says_and_the_retain_term_is_untouched(name):
    lose, way = EVERY[name]
    retain, forget, net = everything()

    def gradients(alpha, lose=lose, forget=forget, retain=retain):
        draws = sgu.rows(retain), forget if forget is None else sgu.rows(forget)
        loss = sgu.objective(*draws, lose, lambda n, g: torch.ones(n), alpha=alpha, batch=64, forget_fraction=0.5)
        net.zero_grad()
        value = loss(net, keyed(0, 0))
        value.backward()
        return torch.cat([p.grad.flatten() for p in net.parameters()]).clone(), float(value.detach())

    mixed, _ = gradients(0.7)
    keep, kept = gradients(1.0)
    other_keep, other_kept = gradients(1.0, forget=forget + 3)
    assert torch.equal(keep, other_keep) and kept == other_kept  # at alpha = 1 the forget batch has no say
    lost = (mixed - 0.7 * keep) / 0.3
    assert lost.norm() > 1e-3 * keep.norm()  # and below it, every loss reaches the weights
    moved = gradients(0.7, retain=retain + 1)[0]
    again = (moved - 0.7 * gradients(1.0, retain=retain + 1)[0]) / 0.3
    torch.testing.assert_close(lost, again, rtol=1e-3, atol=1e-4)  # the forget term does not read the retain batch

    # A short training on the forget term turns the score as the loss says.
    before = angle(net, forget)
    data = sgu.rows(retain), sgu.rows(forget)
    loss = sgu.objective(*data, lose, lambda n, g: torch.ones(n), alpha=0.02, batch=64, forget_fraction=0.5)
    for _ in train.fit(net, loss, 60, lr=3e-3, schedule="constant"):
        pass
    with torch.no_grad():
        after = angle(net, forget)
    assert before.mean() > 0.6
    if way == "together":
        assert after.mean() > before.mean() + 0.05
    elif way == "apart":
        assert after.mean() < -0.3
    else:
        assert after.abs().mean() < 0.7 * before.abs().mean()


def test_fitting_the_mixture_of_losses_finds_the_optimum():
    """A short training in one dimension of noise: the network comes closer to the closed form than to retraining."""
    from memlib import nets

    torch.manual_seed(0)
    net = nets.Preconditioned(nets.MLP(2, 64, 2), 2.0).double()
    loss = sgu.objective(
        lambda n, g: RETAIN.sample(n, g)[0], lambda n, g: FORGET.sample(n, g)[0], losses.obtuse,
        lambda n, g: torch.full((n,), 0.8), alpha=0.6, batch=256, forget_fraction=0.5,
    )  # fmt: skip
    for _ in train.fit(net, loss, 800, lr=5e-3, seed=1):
        pass
    x = noise.add_noise(RETAIN.sample(1000, torch.Generator().manual_seed(9))[0], 0.8, noise.seeded(range(1000)))
    with torch.no_grad():
        got = eps(net, x, 0.8)
        near = (got - eps(sgu.obtuse_optimum(RETAIN, FORGET, 0.6), x, 0.8)).square().mean()
        far = (got - eps(RETAIN, x, 0.8)).square().mean()
    assert near < 0.3 * far


def test_arms_cost_the_same_and_draw_what_they_say():
    seen = []

    def net(x, sigma):
        seen.append((x.clone(), sigma))
        return 0 * x

    retain, forget = torch.zeros(5, 3), torch.full((5, 3), 100.0)
    common = {"batch": 40, "sample_sigma": lambda n, g: torch.full((n,), 0.5)}
    loss = sgu.objective(sgu.rows(retain), sgu.rows(forget), losses.obtuse, forget_fraction=0.25, **common)
    loss(net, keyed(0, 0))
    sgu.objective(sgu.rows(retain), None, None, **common)(net, keyed(0, 0))
    (mixed, level), (plain, _) = seen
    assert len(mixed) == len(plain) == 40 and len(level) == 40
    assert int((mixed.mean(1) > 50).sum()) == 10 and int((plain.mean(1) > 50).sum()) == 0


def test_weights_fall_on_their_own_term():
    seen = {}

    def once(name, factor):
        def weight(sigma):
            seen[name] = sigma
            return torch.full_like(sigma, factor)

        return weight

    data = sgu.rows(torch.randn(8, 3, generator=torch.Generator().manual_seed(0)))

    def value(keep, lose):
        loss = sgu.objective(
            data, data, losses.denoising, lambda n, g: torch.rand(n, generator=g) + 0.5, alpha=0.5, batch=12,
            forget_fraction=1 / 3, weight=once("keep", keep), forget_weight=once("lose", lose),
        )  # fmt: skip
        return float(loss(lambda x, sigma: 0 * x, keyed(0, 0)))

    one, zero = value(1.0, 0.0), value(0.0, 1.0)
    assert math.isclose(value(2.0, 5.0), 2 * one + 5 * zero, rel_tol=1e-5)
    assert len(seen["keep"]) == 8 and len(seen["lose"]) == 4


def test_refusals():
    data = sgu.rows(torch.zeros(4, 3))
    with pytest.raises(Refused, match="give both"):
        sgu.objective(data, data, None, data)
    with pytest.raises(Refused, match="not 0"):
        sgu.objective(data, data, losses.obtuse, data, alpha=0)
    with pytest.raises(Refused, match="empty"):
        sgu.objective(data, data, losses.obtuse, data, batch=2, forget_fraction=0.1)
    with pytest.raises(Refused, match="no image"):
        sgu.rows(torch.zeros(0, 3))
