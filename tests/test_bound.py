"""Theorem 1 against InfoNCE written out and extreme codes; lemma 1 against entropies in closed form and by scipy."""

import math

import pytest
import torch
from scipy import integrate, stats
from torch.distributions import MultivariateNormal, kl_divergence

from memlib.errors import Refused
from memlib.papers.i2i.bound import Bound, divergence, infonce, infonce_maximum, matched, theorem1


def unit(n, dim, seed):
    x = torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x / x.norm(dim=1, keepdim=True)


def simplex(k):
    """k unit vectors, any two at inner product -1 / (k - 1), (k, k)."""
    x = torch.eye(k, dtype=torch.float64) - 1 / k
    return x / x.norm(dim=1, keepdim=True)


def test_infonce_written_out():
    q, k = unit(5, 3, 0), unit(5, 3, 1)
    terms = [math.exp(float(q[i] @ k[i])) / sum(math.exp(float(q[i] @ k[j])) for j in range(5)) for i in range(5)]
    assert float(infonce(q, k)) == pytest.approx(math.log(5) + sum(map(math.log, terms)) / 5)


def test_infonce_of_an_optimal_critic_is_the_information_of_a_gaussian_pair():
    """With log p(y|x)/p(y) as inner product, and many pairs, it comes near -log(1 - rho^2) / 2."""
    rho, n = 0.8, 2000
    x, e = torch.randn(2, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y, v = rho * x + math.sqrt(1 - rho**2) * e, 1 - rho**2
    queries = torch.stack([rho * x / v, -(rho**2) * x**2 / (2 * v), torch.ones(n)], 1)
    keys = torch.stack([y, torch.ones(n), y**2 / 2 - y**2 / (2 * v)], 1)
    assert float(infonce(queries, keys)) == pytest.approx(-0.5 * math.log(v), abs=0.06)


def test_equation_8_written_out():
    new, old = unit(6, 4, 0), unit(6, 4, 1)
    eps = [math.dist(a, b) for a, b in zip(new.tolist(), old.tolist(), strict=True)]
    total = 0.0
    for i in range(6):
        inner = sum(math.exp(eps[j] + float(old[i] @ old[j])) for j in range(6))
        total += math.log(math.exp(eps[i] ** 2 / 2 - 1) * inner) / 6
    bound = theorem1(7 * new, 0.1 * old)  # lengths do not matter, nor the order of encoders for eps
    assert bound.printed == pytest.approx(math.log(6) - total)
    assert bound.infonce == pytest.approx(float(infonce(old, new)))
    assert bound.distance == pytest.approx(sum(eps) / 6)


@pytest.mark.parametrize("seed", range(20))
def test_the_chain_of_inequalities(seed):
    old = unit(32, 8, seed)
    new = old + 0.05 * seed * unit(32, 8, 100 + seed)
    bound = theorem1(new, old)
    assert bound.printed <= bound.infonce + 1e-12 <= bound.infonce_maximum < 1 < math.log(32)
    if seed == 0:
        assert bound.printed == pytest.approx(bound.infonce) and bound.distance == pytest.approx(0, abs=1e-12)


def test_a_smaller_distance_raises_the_printed_bound():
    old, other = unit(64, 16, 0), unit(64, 16, 1)
    path = [theorem1(old + w * (other - old), old) for w in (0.0, 0.1, 0.2, 0.4, 0.8)]
    assert all(a.printed > b.printed and a.distance < b.distance for a, b in zip(path, path[1:], strict=False))


@pytest.mark.parametrize("k", [2, 3, 5, 17, 200])
def test_the_ceiling_is_reached_by_a_simplex_and_passed_by_nothing(k):
    assert float(infonce(simplex(k), simplex(k))) == pytest.approx(infonce_maximum(k), abs=1e-12)
    if k > 17:
        return
    q, p = (unit(k, k, seed).requires_grad_() for seed in (0, 1))  # climb: no pair of unit codes gets higher
    climb = torch.optim.Adam([q, p], 0.05)
    for _ in range(300):
        value = infonce(q / q.norm(dim=1, keepdim=True), p / p.norm(dim=1, keepdim=True))
        climb.zero_grad()
        (-value).backward()
        climb.step()
    assert infonce_maximum(k) - 0.01 < value.item() <= infonce_maximum(k) + 1e-12


def test_the_ceiling_nears_one_nat():
    values = [infonce_maximum(k) for k in (2, 4, 16, 256, 10**6)]
    assert values == sorted(values) and 1 - 2e-6 < values[-1] < 1
    assert values[0] == pytest.approx(math.log(2) - math.log(1 + math.exp(-2)))


def test_fresh_noise_tells_nothing():
    """Eq. 9 with noise that is independent of the images: at most 0 in expectation, as I(n; X_f) = 0 demands."""
    values = [theorem1(unit(16, 4, seed), unit(16, 4, 1000 + seed)).infonce for seed in range(200)]
    assert sum(values) / 200 < 0.0
    same = torch.ones(16, 4)  # unless codes collapse, and then it is 0
    assert theorem1(same, same).infonce == pytest.approx(0.0, abs=1e-12)


def test_spread_of_lengths():
    x = unit(4, 3, 0)
    assert theorem1(x, x).spread == pytest.approx(0, abs=1e-12)
    lengths = torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None]
    assert theorem1(x, x * lengths).spread == pytest.approx(float(lengths.std() / 2.5), rel=1e-6)
    assert isinstance(theorem1(x.float().view(4, 3, 1), x.float().view(4, 3, 1)), Bound)


def test_bound_refusals():
    with pytest.raises(Refused, match=r"\(2, 3\) and \(3, 3\)"):
        theorem1(torch.ones(2, 3), torch.ones(3, 3))
    with pytest.raises(Refused, match="length 0"):
        theorem1(torch.zeros(2, 3), torch.ones(2, 3))
    with pytest.raises(Refused, match="length 0 or is no number"):
        theorem1(torch.full((2, 3), torch.nan), torch.ones(2, 3))
    with pytest.raises(Refused, match="not 1"):
        infonce_maximum(1)


GRID = torch.linspace(-30, 30, 600_001, dtype=torch.float64)
SCIPY = {
    "gaussian": stats.norm(), "uniform": stats.uniform(-math.sqrt(3), 2 * math.sqrt(3)),
    "laplace": stats.laplace(scale=math.sqrt(0.5)),
}  # fmt: skip


def test_lemma_1_as_printed_fails_at_its_own_maximiser():
    """P_f = N(0, Sigma): the printed maximum D(P_f || N(0, Sigma)) is 0, the least that a divergence can be."""
    root = torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    law = MultivariateNormal(torch.zeros(5, dtype=torch.float64), root @ root.T + torch.eye(5))
    assert float(kl_divergence(law, law)) == pytest.approx(0, abs=1e-12)
    laws = matched(GRID)
    divergences = {name: divergence(laws["gaussian"], log_q, GRID) for name, log_q in laws.items()}
    assert divergences.pop("gaussian") == 0 and min(divergences.values()) > 0.05


@pytest.mark.parametrize("name", ["uniform", "laplace", "mixture"])
def test_lemma_1_fails_for_every_other_law_too(name):
    laws = matched(GRID)
    to_gaussian = divergence(laws[name], laws["gaussian"], GRID)
    rivals = [divergence(laws[name], log_q, GRID) for other, log_q in laws.items() if other not in (name, "gaussian")]
    assert max(rivals) > to_gaussian + 0.05


@pytest.mark.parametrize("name", ["gaussian", "uniform", "laplace", "mixture"])
def test_the_laws_have_mean_0_and_variance_1(name):
    p = matched(GRID)[name].exp()
    moments = [float(torch.trapezoid(p * GRID**power, GRID)) for power in range(3)]
    assert moments == pytest.approx([1, 0, 1], abs=1e-4)
    if name in SCIPY:
        x = torch.tensor([-1.8, -1.5, -0.3, 0.0, 0.7, 1.6], dtype=torch.float64)
        torch.testing.assert_close(matched(x)[name], torch.from_numpy(SCIPY[name].logpdf(x.numpy())))


def test_the_true_neighbour_by_closed_forms():
    """h(N) - h(p): log(2 pi e / 12) / 2 for a uniform law, log(pi / e) / 2 for a Laplace one; and scipy's entropies."""
    laws = matched(GRID)
    lacks = {name: divergence(log_p, laws["gaussian"], GRID) for name, log_p in laws.items()}
    assert lacks["uniform"] == pytest.approx(0.5 * math.log(2 * math.pi * math.e / 12), abs=1e-4)
    assert lacks["laplace"] == pytest.approx(0.5 * math.log(math.pi / math.e), abs=1e-4)
    for name, law in SCIPY.items():
        assert lacks[name] == pytest.approx(float(stats.norm.entropy() - law.entropy()), abs=1e-4)
    std = math.sqrt(0.19)

    def minus_p_log_p(x):
        p = 0.5 * (stats.norm.pdf(x, -0.9, std) + stats.norm.pdf(x, 0.9, std))
        return -p * math.log(p) if p > 0 else 0.0

    entropy = integrate.quad(minus_p_log_p, -8, 8, points=[-0.9, 0.9], limit=200)[0]
    assert lacks["mixture"] == pytest.approx(float(stats.norm.entropy()) - entropy, abs=1e-6)
    assert all(value >= 0 for value in lacks.values())


def test_a_law_beyond_the_others_support_is_infinitely_far():
    laws = matched(GRID)
    assert divergence(laws["gaussian"], laws["uniform"], GRID) == math.inf
    assert divergence(laws["uniform"], laws["uniform"], GRID) == 0
