"""Stacked score networks against one network at a time, sharpness against dense Hessians, s* against its definition."""

import math
from itertools import repeat

import pytest
import torch

from memlib.analytic import Empirical, GaussianMixture
from memlib.errors import Refused
from memlib.papers import learning_rate
from memlib.sample import ancestral

POINTS = torch.tensor([[-1.3], [-0.4], [0.2], [1.5]], dtype=torch.float64)


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def members(count=3, sigma=0.3):
    return learning_rate.problem(POINTS, torch.full((count,), sigma))


# The optimum and the risk.


@pytest.mark.parametrize("sigma", [0.9, 0.1, 0.01])
def test_optimal_score_is_its_definition(sigma):
    """The slide's quotient, in float64 and as it stands, wherever its sums do not vanish."""
    problem = learning_rate.problem(POINTS, torch.tensor([sigma]))
    mu = math.sqrt(1 - sigma**2)
    y = (mu * POINTS + sigma * torch.linspace(-3, 3, 25)).reshape(1, -1, 1)
    expected = []
    for value in y.flatten().tolist():
        weights = [math.exp(-((value - mu * x) ** 2) / (2 * sigma**2)) for x in POINTS.flatten().tolist()]
        top = sum((mu * x - value) * w for x, w in zip(POINTS.flatten().tolist(), weights, strict=True))
        expected.append(top / (sigma**2 * sum(weights)))
    expected = torch.tensor(expected)
    found = learning_rate.optimal_score(problem, y).flatten()
    assert ((found - expected).abs() / expected.abs().clamp_min(1)).max() < 1e-10


def test_optimal_score_is_stable_as_sigma_falls_and_is_that_of_the_empirical_denoiser():
    y = torch.tensor([[[-0.8], [0.9], [40.0]]])  # off every point: the quotient of the slide is 0 / 0 here
    problem = learning_rate.problem(POINTS, torch.tensor([1e-4]))
    nearest = torch.tensor([-0.4, 1.5, 1.5])
    torch.testing.assert_close(
        learning_rate.optimal_score(problem, y).flatten(), (problem.mu * nearest - y.flatten()) / 1e-8
    )
    points = torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(0))
    problem = learning_rate.problem(points, torch.tensor([0.4, 0.7]))
    y = torch.randn(2, 11, 3, generator=torch.Generator().manual_seed(1))
    for m in range(2):
        mu, sigma = problem.mu[m], problem.sigma[m]
        house = Empirical(points[m])(y[m] / mu, sigma / mu)
        torch.testing.assert_close(learning_rate.optimal_score(problem, y)[m], (mu * house - y[m]) / sigma**2)


def test_excess_risk_is_the_risk_above_its_minimum_and_zero_has_the_ceiling():
    problem = members(1)
    fine = learning_rate.quadrature(problem, 2001)

    def star(y):
        return learning_rate.optimal_score(problem, y)

    def other(y):
        return y.sin() - 2 * y

    gap = learning_rate.risk(other, fine) - learning_rate.risk(star, fine)
    # The tails are cut off.
    torch.testing.assert_close(learning_rate.excess_risk(other, problem, fine), gap, rtol=1e-4, atol=0)
    zero = learning_rate.risk(torch.zeros_like, fine)
    torch.testing.assert_close(zero, learning_rate.zero_score_risk(problem), rtol=1e-3, atol=0)
    assert learning_rate.excess_risk(torch.zeros_like, problem, fine) < zero
    density = learning_rate.density(problem, fine.y)
    mixture = GaussianMixture(problem.mu[0] * POINTS, std=float(problem.sigma[0]))
    torch.testing.assert_close(density[0].log(), mixture.log_prob(fine.y[0]))


def test_the_theorems_quantities_by_hand():
    problem = learning_rate.problem(torch.tensor([[0.0], [0.5], [2.0]]), torch.tensor([0.6]))
    assert torch.allclose(problem.mu, torch.tensor([0.8]))
    assert torch.allclose(learning_rate.min_distance(problem.points), torch.tensor([0.5]))
    assert torch.allclose(learning_rate.rate_threshold(problem), torch.tensor(4096 * 0.36 / (0.8 * 9 * 0.5)))
    assert torch.allclose(learning_rate.risk_bound(problem, 10.0), torch.tensor(3**5 * 0.125 / (1e4 * 0.6**4)))


def test_minibatches_have_the_right_law_and_depend_on_seed_and_step_alone():
    seeds = torch.tensor([5, 2, 5])
    problem = learning_rate.problem(POINTS, torch.tensor([0.5, 0.5, 0.2]))
    batches = list(learning_rate.minibatches(problem, seeds, 64, 130))
    assert len(batches) == 130
    torch.testing.assert_close(batches[7].target[0] * 0.5, batches[7].target[2] * 0.2)  # one seed, one noise
    assert not torch.allclose(batches[7].target[0], batches[7].target[1])
    alone = learning_rate.Problem(problem.points[1:2], problem.mu[1:2], problem.sigma[1:2])
    later = next(iter(learning_rate.minibatches(alone, seeds[1:2], 64, 1, first=100)))
    torch.testing.assert_close(later.y[0], batches[100].y[1], rtol=0, atol=0)
    y, target = (torch.cat([b[i] for b in batches], 1)[:2] for i in (0, 1))
    origin = (y + target * 0.25) / problem.mu[0]  # y - mu x = -sigma^2 target
    assert (torch.cdist(origin, POINTS.expand(2, -1, -1)).amin(2) < 1e-7).all()
    assert abs(target.mean()) < 5 * 2 / (2 * 130 * 64) ** 0.5 and abs(target.var() - 4) < 0.2
    assert learning_rate.quadrature(problem).weight.sum() == pytest.approx(1)


# Training.


def plain(net, problem, seeds, rate, steps, size, bound, member, optimiser="sgd"):
    """One member, as a user would write it: autograd, a loop over steps, torch's own optimiser."""
    one = net.members(torch.tensor([member]))
    leaves = [p.clone().requires_grad_() for p in one.trained]
    model = one.with_parameters(leaves)
    if optimiser == "adam":
        engine = torch.optim.Adam(leaves, float(rate[member]))
    else:
        groups = [{"params": [p], "lr": float(rate[member]) * c} for p, c in zip(leaves, one.lr_scale, strict=True)]
        engine = torch.optim.SGD(groups)
    own = learning_rate.Problem(*(t[member : member + 1] for t in problem))
    for batch in learning_rate.minibatches(own, seeds[member : member + 1], size, steps):
        engine.zero_grad()
        ((model(batch.y) - batch.target) ** 2).sum(2).mean().backward()
        engine.step()
        with torch.no_grad():
            leaves[-1 if isinstance(one, learning_rate.Deep) else 1].clamp_(-bound, bound)
    return leaves


@pytest.mark.parametrize("kind", ["paper", "free", "deep", "adam", "plane"])
def test_a_stack_is_the_plain_loop_over_its_members(kind):
    seeds, rate = torch.tensor([3, 4, 3, 9]), torch.tensor([1e-3, 0.02, 0.3, 0.01])
    dim = 2 if kind == "plane" else 1
    points = torch.randn(5, dim, generator=torch.Generator().manual_seed(0))
    problem = learning_rate.problem(points, torch.tensor([0.3, 0.5, 0.4, 0.8]))
    optimiser = "adam" if kind == "adam" else "sgd"
    bound = 1.5
    net = (
        learning_rate.deep(seeds, 16, dim)
        if kind == "deep"
        else learning_rate.two_layer(seeds, 16, dim, free=kind == "free")
    )
    expected = [plain(net, problem, seeds, rate, 100, 8, bound, i, optimiser) for i in range(4)]
    batches = learning_rate.minibatches(problem, seeds, 8, 100)
    for progress in learning_rate.descend(net, problem, rate, batches, bound=bound, optimiser=optimiser):
        assert progress.step == 100 and progress.alive.all()
    for i, leaves in enumerate(expected):
        for mine, its in zip(net.trained, leaves, strict=True):
            assert (mine[i] - its[0]).abs().max() < 1e-6
    assert net.w2.abs().max() == bound  # the projection was felt


@pytest.mark.parametrize("dim", [1, 3])
def test_the_gradient_does_not_depend_on_how_members_share_the_cache(dim, monkeypatch):
    points = torch.randn(5, dim, generator=torch.Generator().manual_seed(0))
    problem = learning_rate.problem(points, torch.full((5,), 0.4))
    net = learning_rate.two_layer(torch.arange(5), 16, dim, free=True)
    batch = next(learning_rate.minibatches(problem, torch.arange(5), 8, 1))
    whole = net.gradient(batch)
    monkeypatch.setattr("memlib.papers.learning_rate.shallow._CELLS", 2 * 16 * 8)  # blocks of 2, 2 and 1
    for a, b in zip(whole, net.gradient(batch), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_two_layer_is_its_formula():
    net = learning_rate.two_layer(torch.tensor([1]), 6)
    assert set(net.w1.flatten().tolist()) == {-1.0, 1.0}
    y = 0.7
    terms = zip(net.w1[0, 0], net.b[0], net.w2[0, :, 0], strict=True)
    value = sum(float(w2) * max(0.0, float(w1) * y + float(b)) for w1, b, w2 in terms) / 6
    assert float(net(torch.tensor([[[y]]]))) == pytest.approx(value, abs=1e-14)
    assert torch.allclose(learning_rate.two_layer(torch.tensor([1]), 6, 5).w1.norm(dim=1), torch.ones(1, 6))


def test_members_that_diverge_are_counted_and_touch_nobody():
    seeds, rate = torch.tensor([0, 1, 0, 2]), torch.tensor([1e-3, 1e-2, 1e-2, 1e-2])
    problem = members(4)
    net, calm = learning_rate.two_layer(seeds, 16), learning_rate.two_layer(seeds[::2], 16)
    net.w2[1::2] *= torch.tensor([1e200, 1e160])[:, None, None]
    (end,) = learning_rate.descend(net, problem, rate, learning_rate.minibatches(problem, seeds, 32, 200))
    assert end.alive.tolist() == [True, False, True, False]
    assert (end.diverged_at[1::2] > 0).all() and (end.diverged_at[::2] == -1).all()
    own = learning_rate.Problem(*(t[::2] for t in problem))
    list(learning_rate.descend(calm, own, rate[::2], learning_rate.minibatches(own, seeds[::2], 32, 200)))
    for all_four, two in zip(net.trained, calm.trained, strict=True):
        torch.testing.assert_close(all_four[::2], two, rtol=0, atol=1e-9)
        assert (all_four[1::2] == 0).all()


def test_a_run_goes_on_where_it_stopped():
    seeds, problem, rate = torch.arange(2), members(2), torch.tensor([0.01, 0.03])
    whole, parts = (learning_rate.two_layer(seeds, 8) for _ in range(2))
    batches = learning_rate.minibatches(problem, seeds, 32, 150)
    steps = [p.step for p in learning_rate.descend(whole, problem, rate, batches, at=[10, 100])]
    list(learning_rate.descend(parts, problem, rate, learning_rate.minibatches(problem, seeds, 32, 100)))
    list(learning_rate.descend(parts, problem, rate, learning_rate.minibatches(problem, seeds, 32, 50, first=100)))
    assert steps == [10, 100, 150]
    torch.testing.assert_close(whole.b, parts.b, rtol=0, atol=0)


def test_a_ramp_rises_holds_and_falls_geometrically():
    factor = learning_rate.ramp(torch.tensor([1e-2, 1e-4]), 1e-6, 1e-6, 4, 3, 2)
    rates = torch.stack([factor(step) for step in range(1, 10)]) * torch.tensor([1e-2, 1e-4])
    torch.testing.assert_close(rates[3:7], torch.tensor([1e-2, 1e-4]).expand(4, -1))
    torch.testing.assert_close(rates[:4, 0], torch.tensor([1e-5, 1e-4, 1e-3, 1e-2]))
    torch.testing.assert_close(rates[7:, 0], torch.tensor([1e-4, 1e-6]))
    at_once = learning_rate.ramp(torch.tensor([1e-2]), 1e-6, 1e-6, 0, 3, 2)
    assert at_once(1) == 1 and torch.allclose(at_once(5), torch.tensor([1e-4]))


def test_a_schedule_multiplies_every_members_rate():
    seeds, problem, rate = torch.arange(2), members(2), torch.tensor([0.01, 0.03])
    whole, parts = (learning_rate.two_layer(seeds, 8) for _ in range(2))
    batches = list(learning_rate.minibatches(problem, seeds, 32, 20))
    factors = torch.rand(20, 2, generator=torch.Generator().manual_seed(0))
    list(learning_rate.descend(whole, problem, rate, batches, schedule=lambda step: factors[step - 1]))
    for batch, factor in zip(batches, factors, strict=True):
        list(learning_rate.descend(parts, problem, rate * factor, [batch]))
    torch.testing.assert_close(whole.b, parts.b, rtol=0, atol=1e-12)


# Sharpness.


def dense(net, batch, member, problem=None):
    """The Hessian of one member, scaled as its update is, from torch.func.hessian."""
    one = net.members(torch.tensor([member]))
    shapes = [p.shape for p in one.trained]
    flat = torch.cat([p.flatten() for p in one.trained])
    own = batch._replace(y=batch.y[member : member + 1], target=batch.target[member : member + 1])

    def loss(vector):
        parts = vector.split([math.prod(s) for s in shapes])
        return learning_rate.risk(one.with_parameters([v.view(s) for v, s in zip(parts, shapes, strict=True)]), own)[0]

    hessian = torch.func.hessian(loss)(flat)
    if problem is not None:
        here = learning_rate.Problem(*(t[member : member + 1] for t in problem))
        hessian = hessian + torch.diag(torch.cat([k.flatten() for k in one.kinks(here)]))
    lr_scales = [torch.full((math.prod(s),), c**0.5) for s, c in zip(shapes, one.lr_scale, strict=True)]
    lr_scale = torch.cat(lr_scales)
    return lr_scale[:, None] * hessian * lr_scale


@pytest.mark.parametrize("kind", ["paper", "free", "deep", "kinks"])
def test_sharpness_is_the_largest_eigenvalue_of_the_dense_hessian(kind):
    seeds, problem = torch.arange(3), members(3)
    net = (
        learning_rate.deep(seeds, 6)
        if kind == "deep"
        else learning_rate.two_layer(seeds, 12, free=kind == "free", scale=3.0)
    )
    batch = learning_rate.quadrature(problem, 15)
    extra = problem if kind == "kinks" else None
    found = learning_rate.sharpness(net, batch, extra, iterations=60)
    expected = torch.stack([torch.linalg.eigvalsh(dense(net, batch, i, extra))[-1] for i in range(3)])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_sharpness_in_adams_coordinates_is_that_of_the_preconditioned_hessian():
    seeds, problem = torch.arange(2), members(2)
    net, batch = learning_rate.two_layer(seeds, 6, scale=3.0), learning_rate.quadrature(problem, 15)
    (end,) = learning_rate.descend(net, problem, torch.full((2,), 0.01), repeat(batch, 30), optimiser="adam")
    found = learning_rate.sharpness(net, batch, iterations=60, scale=end.scale)
    for i in range(2):
        plain_hessian = dense(net, batch, i) / 6  # without the factor m of plain descent
        root = torch.cat([scale[i].flatten() for scale in end.scale]) ** 0.5
        expected = torch.linalg.eigvalsh(root[:, None] * plain_hessian * root)[-1]
        torch.testing.assert_close(found[i], expected, rtol=1e-6, atol=1e-8)


def test_adam_on_a_parabola_is_stable_up_to_38_over_eta():
    """The line itself: a frozen preconditioner, a first moment of 0.9, and curvature just below and above."""
    for share, leaves in ((0.95, False), (1.05, True)):
        x, mean = 1.0, 0.0
        for _ in range(400):
            mean = 0.9 * mean + 0.1 * 38 * share * x  # eta = 1
            x -= mean
        assert (abs(x) > 1) == leaves


def test_the_kinks_belong_to_the_hessian_of_the_expected_risk():
    """Differences of the gradient over a quadrature far finer than the step: what no finite batch's Hessian holds."""
    problem = members(1)
    net = learning_rate.two_layer(torch.tensor([1]), 5, scale=3.0)
    fine, step = learning_rate.quadrature(problem, 40_001), 1e-2
    columns = []
    for l in range(5):  # noqa: E741
        ends = []
        for sign in (1, -1):
            moved = net.members(torch.tensor([0]))
            moved.b[0, l] += sign * step
            ends.append(moved.gradient(fine)[0][0])
        columns.append((ends[0] - ends[1]) / (2 * step))
    differences = torch.stack(columns, 1)
    plain_hessian = dense(net, learning_rate.quadrature(problem, 4001), 0)[:5, :5] / 5
    whole = plain_hessian + torch.diag(net.kinks(problem)[0][0])
    scale = whole.abs().max()
    assert (differences - whole).abs().max() < 0.02 * scale
    assert (differences - plain_hessian).abs().max() > 0.1 * scale  # and without them it would not fit


@pytest.mark.parametrize(("share", "leaves"), [(0.9, False), (1.1, True)])
def test_gradient_descent_leaves_a_minimum_beyond_the_edge(share, leaves):
    """Started a hair off a minimum, full batch: it comes back below eta = 2 / (m lambda) and goes away above."""
    problem = learning_rate.problem(torch.tensor([[-1.0], [1.0]]), torch.tensor([0.5]))
    net = learning_rate.two_layer(torch.tensor([0]), 4, scale=0.5)
    net.b += 6  # every unit active on all the data: no kink to cross, and a minimum that descent reaches
    batch = learning_rate.quadrature(problem)
    edge = float(2 / learning_rate.sharpness(net, batch, iterations=8)[0])
    list(learning_rate.descend(net, problem, torch.tensor([0.5 * edge]), repeat(batch, 20_000)))
    assert max(float(g.abs().max()) for g in net.gradient(batch)) < 1e-7
    edge = float(2 / learning_rate.sharpness(net, batch, iterations=8)[0])
    values, vectors = torch.linalg.eigh(dense(net, batch, 0))
    direction = vectors[:, -1] / 2  # lr_scale^1/2 = 2, alike for b and w2
    moved = net.members(torch.tensor([0]))
    moved.b += 1e-6 * direction[:4]
    moved.w2 += 1e-6 * direction[4:].view(1, 4, 1)
    before = max(float((a - b).abs().max()) for a, b in zip(moved.trained, net.trained, strict=True))
    list(learning_rate.descend(moved, problem, torch.tensor([share * edge]), repeat(batch, 20)))
    after = max(float((a - b).abs().max()) for a, b in zip(moved.trained, net.trained, strict=True))
    assert (after > before) == leaves


# Samples, and mistakes.


def test_networks_of_several_levels_sample_every_run_as_a_loop_would():
    levels = torch.tensor([0.9, 0.5, 0.2])
    problem = learning_rate.problem(POINTS, levels.repeat(2))
    net = learning_rate.two_layer(torch.tensor([0, 0, 0, 1, 1, 1]), 8)
    denoiser, grid = learning_rate.multilevel_denoiser(net, problem, 3)
    torch.testing.assert_close(grid, torch.cat([levels / (1 - levels**2).sqrt(), torch.zeros(1)]))
    x = grid[0] * torch.randn(2, 5, 1, generator=torch.Generator().manual_seed(0))
    end = ancestral(denoiser, x, grid)
    for run in range(2):
        state = x[run]
        for k in range(3):
            mu, sigma = problem.mu[k], problem.sigma[k]
            score = net.members(torch.tensor([3 * run + k]))((mu * state)[None])[0]
            mean = state + (sigma / mu) ** 2 * mu * score
            state = mean + grid[k + 1] / grid[k] * (state - mean)
        torch.testing.assert_close(end[run], state)
    with pytest.raises(Refused, match="no network for level"):
        denoiser(x, torch.tensor(0.3))


def kinks_of_a_plane():
    problem = learning_rate.problem(
        torch.randn(1, 4, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0.5])
    )
    batch = next(learning_rate.minibatches(problem, torch.arange(1), 8, 1))
    return learning_rate.sharpness(learning_rate.two_layer(torch.arange(1), 4, 2), batch, problem)


@pytest.mark.parametrize(
    "call",
    [
        lambda: learning_rate.problem(POINTS, torch.tensor([1.5])),
        lambda: learning_rate.problem(POINTS[None], torch.tensor([0.5, 0.5])),
        lambda: learning_rate.quadrature(learning_rate.problem(torch.zeros(3, 2), torch.tensor([0.5]))),
        lambda: next(learning_rate.descend(learning_rate.two_layer(torch.arange(2), 4), members(2), torch.ones(3), [])),
        lambda: next(
            learning_rate.descend(learning_rate.two_layer(torch.arange(1), 4), members(1), torch.zeros(1), [])
        ),
        lambda: learning_rate.multilevel_denoiser(learning_rate.two_layer(torch.arange(4), 4), members(4), 2),
        lambda: kinks_of_a_plane(),
    ],
)
def test_mistakes_are_refused_in_a_sentence(call):
    with pytest.raises(Refused):
        call()
