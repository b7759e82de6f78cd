"""Statistics of denoisers and of published images: known members of a model that memorizes, formulas, and refusals."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from memlib import analytic, losses, membership, metrics
from memlib.errors import Refused
from memlib.nets import MLP, Preconditioned
from memlib.noise import seeded
from memlib.random import keyed, noise_from

N, D = 150, 12
MEMBERS, FRESH, OTHERS = torch.randn(3, N, D, generator=keyed(11, 0), dtype=torch.float64)
IMAGES, SEEDS = torch.cat([MEMBERS, FRESH]), range(2 * N)
POPULATION = analytic.GaussianMixture(torch.zeros(1, D, dtype=torch.float64), std=1.0)


class Remembering(nn.Module):
    """The perfect memorizer as a network whose weights are what it remembers."""

    def __init__(self, points):
        super().__init__()
        self.points = nn.Parameter(points.clone())

    def forward(self, x, sigma):
        squares = (x[:, None] - self.points).square().sum(2)
        return (-squares / (2 * sigma.reshape(-1, 1) ** 2)).softmax(1) @ self.points


def smooth(points):
    """A memorizer whose D depends on x around each point."""
    return analytic.GaussianMixture(points, std=0.1)


STATISTICS = {
    "loss": lambda points: membership.loss_statistic(analytic.Empirical(points), IMAGES, 0.3, seeded(SEEDS)),
    "loss, three draws": lambda points: membership.loss_statistic(
        analytic.Empirical(points), IMAGES, 0.3, seeded(SEEDS), draws=3
    ),
    "conditional": lambda points: membership.conditional_discrepancy(
        POPULATION, analytic.Empirical(points), IMAGES, 0.3, seeded(SEEDS)
    ),
    "secmi": lambda points: membership.secmi(analytic.Empirical(points), IMAGES, 0.3, 0.1),
    "secmi, smooth": lambda points: membership.secmi(smooth(points), IMAGES, 0.3, 0.1),
    "pia": lambda points: membership.pia(analytic.Empirical(points), IMAGES, 0.3, 0.01),
    "sima": lambda points: membership.sima(analytic.Empirical(points), IMAGES, 0.3),
    "local dimension": lambda points: membership.local_dimension(
        analytic.Empirical(points), IMAGES, 0.3, seeded(SEEDS)
    ),
    "gradient": lambda points: membership.gradient_norm(Remembering(points), IMAGES, 0.3, seeded(SEEDS)),
    "distance": lambda points: membership.nearest_distance(IMAGES, points + 0.1),
}


@pytest.mark.parametrize("name", STATISTICS)
def test_members_of_a_memorizer_are_found_and_those_of_another_are_not(name):
    found, blind = STATISTICS[name](MEMBERS), STATISTICS[name](OTHERS)
    assert found.shape == (2 * N,) and found.isfinite().all()
    assert metrics.auc(found[:N], found[N:])[0] > 0.9
    assert abs(metrics.auc(blind[:N], blind[N:])[0] - 0.5) < 3.5 * math.sqrt((2 * N + 1) / (12 * N * N))


def test_curvature_tells_members_at_a_level_between_the_points_and_not_below():
    def area(points, sigma):
        found = membership.curvature(analytic.Empirical(points), IMAGES, sigma, seeded(SEEDS))
        return metrics.auc(found[:N], found[N:])[0]

    chance = 3.5 * math.sqrt((2 * N + 1) / (12 * N * N))
    assert area(MEMBERS, 1.0) > 0.8 and abs(area(OTHERS, 1.0) - 0.5) < chance
    assert abs(area(MEMBERS, 0.5) - 0.5) < chance


class TestLoss:
    def test_is_the_mean_square_error_of_eps_over_draws(self):
        fresh, total = seeded(SEEDS), torch.zeros(2 * N, dtype=torch.float64)
        for _ in range(2):
            noise = fresh(IMAGES)
            x = IMAGES + 0.5 * noise
            total += ((x - POPULATION(x, torch.tensor(0.5))) / 0.5 - noise).square().mean(1) / 2
        found = membership.loss_statistic(POPULATION, IMAGES, 0.5, seeded(SEEDS), draws=2)
        torch.testing.assert_close(found, -total)

    def test_of_a_gaussian_has_its_known_mean(self):
        # The best D leaves sigma^2 / (1 + sigma^2) of each coordinate: in eps, 1 / (1 + sigma^2).
        x = torch.randn(4000, D, generator=keyed(11, 1), dtype=torch.float64)
        found = membership.loss_statistic(POPULATION, x, 0.5, noise_from(keyed(11, 2)))
        assert float(found.mean()) == pytest.approx(-1 / 1.25, abs=0.02)

    def test_levels_may_differ_and_networks_are_calm(self):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = nn.Sequential(nn.Dropout(0.5), nn.Linear(D, D)).double().train()

        def denoiser(x, sigma):
            return net(x)

        levels = torch.linspace(0.1, 1, 2 * N)
        both = [membership.loss_statistic(denoiser, IMAGES, levels, seeded(SEEDS)) for _ in range(2)]
        assert torch.equal(*both) and net.training and not both[0].requires_grad
        alone = membership.loss_statistic(denoiser, IMAGES[7:8], float(levels[7]), seeded([7]))
        torch.testing.assert_close(both[0][7:8], alone)

    @pytest.mark.parametrize("sigma", [0.0, -1.0, math.inf, math.nan])
    def test_a_level_without_noise_is_refused(self, sigma):
        fresh = seeded(SEEDS)
        with pytest.raises(Refused, match="noise level"):
            membership.loss_statistic(POPULATION, IMAGES, sigma, fresh)
        with pytest.raises(Refused, match="noise level"):
            membership.conditional_discrepancy(POPULATION, POPULATION, IMAGES, sigma, fresh)
        with pytest.raises(Refused, match="noise level"):
            membership.pia(POPULATION, IMAGES, sigma, 0.01)
        with pytest.raises(Refused, match="noise level"):
            membership.gradient_norm(Remembering(MEMBERS), IMAGES, sigma, fresh)

    def test_no_draw_is_refused(self):
        with pytest.raises(Refused, match="1 draw"):
            membership.loss_statistic(POPULATION, IMAGES, 1.0, seeded(SEEDS), draws=0)


def test_a_condition_that_changes_nothing_has_no_discrepancy_and_its_noise_is_drawn_once():
    calls = []

    def noise(x):
        calls.append(1)
        return torch.randn(x.shape, dtype=x.dtype, generator=keyed(12, len(calls)))

    assert (membership.conditional_discrepancy(POPULATION, POPULATION, IMAGES, 0.5, noise) == 0).all()
    assert len(calls) == 1
    first, second = (membership.loss_statistic(D, IMAGES, 0.5, seeded(SEEDS)) for D in (POPULATION, smooth(MEMBERS)))
    found = membership.conditional_discrepancy(POPULATION, smooth(MEMBERS), IMAGES, 0.5, seeded(SEEDS))
    torch.testing.assert_close(found, second - first)


class TestSecmi:
    @pytest.mark.parametrize(("sigma", "step", "lowest"), [(0.3, 0.1, 0.01), (0.3, 0.7, 0.3), (2.0, 1.0, 0.5)])
    def test_of_a_gaussian_is_a_product_of_factors(self, sigma, step, lowest):
        # eps_hat = x sigma / (1 + sigma^2): each Euler step multiplies x by 1 + (target - level) level / (1 + level^2).
        count = math.ceil(math.log(sigma / lowest) / step - 1e-9)
        levels = [lowest * (sigma / lowest) ** (i / max(count, 1)) for i in range(count + 1)] + [sigma * math.exp(step)]
        scale = 1.0
        for level, target in zip(levels[:-2], levels[1:-1], strict=True):
            scale *= 1 + (target - level) * level / (1 + level**2)
        up, down = levels[-1], levels[-2]
        there = 1 + (up - down) * down / (1 + down**2)
        back = 1 + (down - up) * up / (1 + up**2)
        wanted = -(((there * back - 1) * scale) ** 2) * IMAGES.square().sum(1)
        torch.testing.assert_close(membership.secmi(POPULATION, IMAGES, sigma, step, lowest=lowest), wanted)

    def test_up_and_back_cancel_where_one_image_decides(self):
        found = membership.secmi(analytic.Empirical(MEMBERS[:1]), IMAGES, 0.3, 0.1)
        assert found.abs().max() < 1e-20

    def test_its_sign_turns_at_high_levels(self):
        found = membership.secmi(analytic.Empirical(MEMBERS), IMAGES, 1.0, 0.1)
        assert metrics.auc(found[:N], found[N:])[1][1] < 0.5

    @pytest.mark.parametrize(
        ("sigma", "step", "lowest"), [(0.3, 0.0, 0.01), (0.3, 10, 0.01), (0.3, 0.1, 0.0), (0.01, 0.1, 0.02)]
    )
    def test_refusals(self, sigma, step, lowest):
        with pytest.raises(Refused, match="SecMI"):
            membership.secmi(POPULATION, IMAGES, sigma, step, lowest=lowest)


class TestPia:
    @pytest.mark.parametrize("norm", [2.0, 4.0])
    def test_of_a_gaussian(self, norm):
        e = IMAGES * 0.02 / (1 + 0.02**2)
        wanted = -((IMAGES + 0.5 * e) * 0.5 / 1.25 - e).abs().pow(norm).sum(1).pow(1 / norm)
        torch.testing.assert_close(membership.pia(POPULATION, IMAGES, 0.5, 0.02, norm=norm), wanted)

    def test_refusals(self):
        with pytest.raises(Refused, match="lowest trained level"):
            membership.pia(POPULATION, IMAGES, 0.5, 0.0)
        with pytest.raises(Refused, match="p >= 1"):
            membership.pia(POPULATION, IMAGES, 0.5, 0.01, norm=0.5)


class Conditional(nn.Module):
    """A small network that takes a label, with dropout and batch norm."""

    def __init__(self):
        super().__init__()
        self.embed, self.inner = nn.Embedding(3, D), nn.Linear(2 * D + 1, 8)
        self.norm, self.drop, self.outer = nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, D)

    def forward(self, x, sigma, y):
        code = torch.cat([x, self.embed(y), sigma.expand(len(x))[:, None]], 1)
        return self.outer(self.drop(self.norm(self.inner(code)).relu()))


class TestGradientNorm:
    def nets(self):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return Preconditioned(MLP(D, width=16, depth=2)).double(), Conditional().double().train()

    def by_loop(self, net, loss, images, levels, seeds, **labels):
        found, given = [], seeded(seeds)(images)
        for i in range(len(images)):
            bound = partial(net, **{name: one[i : i + 1] for name, one in labels.items()})
            x = images[i : i + 1] + levels[i] * given[i : i + 1]
            eps_hat = (x - bound(x, levels[i : i + 1])) / levels[i]
            weights = [one for one in net.parameters() if one.requires_grad]
            gradients = torch.autograd.grad(loss(eps_hat, given[i : i + 1]).sum(), weights)
            found.append(torch.cat([one.flatten() for one in gradients]).norm())
        return -torch.stack(found)

    @pytest.mark.parametrize("chunk", [3, 64])
    @pytest.mark.parametrize("loss", [losses.denoising, losses.orthogonal])
    def test_against_a_loop(self, loss, chunk):
        net, images, levels = self.nets()[0], IMAGES[:8], torch.linspace(0.2, 2, 8).double()
        found = membership.gradient_norm(net, images, levels, seeded(range(8)), loss=loss, chunk=chunk)
        torch.testing.assert_close(found, self.by_loop(net, loss, images, levels, range(8)))
        assert not found.requires_grad and all(one.grad is None for one in net.parameters())

    def test_with_labels_frozen_weights_and_in_evaluation_mode(self):
        net, images, labels = self.nets()[1], IMAGES[:8], torch.arange(8) % 3
        net.outer.requires_grad_(False)
        found = membership.gradient_norm(net, images, 0.5, seeded(range(8)), conditions={"y": labels})
        assert net.training and int(net.norm.num_batches_tracked) == 0
        net.eval()
        levels = torch.full((8,), 0.5, dtype=torch.float64)
        torch.testing.assert_close(found, self.by_loop(net, losses.denoising, images, levels, range(8), y=labels))

    def test_nothing_trainable_is_refused(self):
        with pytest.raises(Refused, match="requires a gradient"):
            membership.gradient_norm(Remembering(MEMBERS).requires_grad_(False), IMAGES, 0.3, seeded(SEEDS))


class TestNearestDistance:
    def test_against_cdist_over_blocks(self, monkeypatch):
        from memlib.membership import distances

        monkeypatch.setattr(distances, "_ROWS", 32)
        monkeypatch.setattr(distances, "_COLUMNS", 7)
        images, published = IMAGES.reshape(-1, 3, 2, 2), OTHERS.reshape(-1, 3, 2, 2)
        wanted = torch.cdist(IMAGES, OTHERS, compute_mode="donot_use_mm_for_euclid_dist").amin(1)
        torch.testing.assert_close(membership.nearest_distance(images, published), -wanted)

    def test_a_copy_is_at_0_far_from_the_origin_and_in_float32(self):
        published = (1e3 + 1e-2 * IMAGES).float()
        found = membership.nearest_distance(published.flip(0), published)
        assert (found == 0).all() and found.dtype == torch.float64

    def test_of_the_same_label(self):
        x, published = torch.tensor([[0.0], [0.0], [5.0]]), torch.tensor([[1.0], [2.0], [4.0]])
        labels, others = torch.tensor([0, 7, 0]), torch.tensor([7, 0, 0])
        assert membership.nearest_distance(x, published).tolist() == [-1, -1, -1]
        assert membership.nearest_distance(x, published, labels, others).tolist() == [-2, -1, -1]

    def test_refusals(self):
        x, labels = torch.zeros(2, 3), torch.tensor([0, 4])
        for given, why in (
            ((x, torch.zeros(0, 3)), "M >= 1"),
            ((x, torch.zeros(2, 2)), "one shape"),
            ((x, x / 0), "published image 0 is not finite"),
            ((x / 0, x), "image 0 is not finite"),
            ((x, x, labels), "both, or neither"),
            ((x, x, labels, labels[:1]), r"\(1,\)"),
            ((x, x, labels, labels * 0), "label 4"),
        ):
            with pytest.raises(Refused, match=why):
                membership.nearest_distance(*given)
        assert membership.nearest_distance(x[:0], x).shape == (0,)
