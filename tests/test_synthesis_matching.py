"""The matching term: its identity and forms, adapters; R2 on hand-made results and where nothing is there."""

from dataclasses import replace

import pytest
import torch

from memlib import losses, nets
from memlib.papers.synthesis import generators, matching, visual_guidance
from memlib.papers.synthesis.generators import Network, Training
from memlib.papers.synthesis.matching import Term
from memlib.papers.synthesis.pool import Canaries, deal
from memlib.papers.synthesis.study import ablation, fine_tuning, fine_tuning_rules
from memlib.papers.synthesis.study.fine_tuning import NONE, OTHER, SAME, STATED, Outcome, Regime

NETWORK = Network((6,), 16, 1, 3, 1.0)
HOW = Training(3, 16, 1e-2)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def small(count=2):
    """A pool of Gaussian points in three classes, and a stack of untrained generators."""
    y = torch.arange(40) % 3
    x = torch.randn(40, 6, generator=generator()) + y[:, None]
    pool = deal(x, y, 3, count, Canaries(0, 0, 1), 0)
    torch.manual_seed(0)
    return pool, generators.build(NETWORK, count)


@pytest.mark.parametrize("size", [2, 8, 64])
def test_the_printed_term_is_a_part_of_the_loss_and_the_squared_mean(size):
    """E[printed] = (1/B) E|r|^2 + (1 - 1/B) |E r|^2, for residuals of a known law: N(m, diag s^2)."""
    mean, spread = torch.tensor([0.5, -1.0, 0.2]).double(), torch.tensor([1.0, 2.0, 0.5]).double()
    whole = float(mean.square().sum() + spread.square().sum())
    wanted = whole / size + (1 - 1 / size) * float(mean.square().sum())
    draws = mean + spread * torch.randn(20_000, size, 3, generator=generator(), dtype=torch.float64)
    y, snr = torch.zeros(size, dtype=torch.long), torch.ones(size).double()
    found = draws.mean(1).square().sum(1)
    one = matching.penalty("printed", draws[0], torch.zeros_like(draws[0]), y, snr)
    torch.testing.assert_close(one, found[0])
    assert float(found.mean()) == pytest.approx(wanted, abs=5 * float(found.std()) / 20_000**0.5)


def test_the_released_sum_is_64_times_the_mean_over_8_where_no_weight_acts():
    eps_hat, eps = torch.randn(2, 8, 5, generator=generator()).double()
    y, high, low = torch.zeros(8, dtype=torch.long), torch.full((8,), 10.0).double(), torch.full((8,), 2.0).double()
    printed = matching.penalty("printed", eps_hat, eps, y, low)
    torch.testing.assert_close(matching.penalty("released", eps_hat, eps, y, low), 64 * printed)
    torch.testing.assert_close(matching.penalty("released", eps_hat, eps, y, high), 16 * printed)  # w = 1/2
    assert matching.RELEASED.gamma * 64 == pytest.approx(0.19, abs=0.005)


def test_the_term_by_class_and_level_is_the_unbiased_one_of_every_cell():
    residual = torch.randn(9, 4, generator=generator()).double()
    y = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 2])
    snr = torch.tensor([1.0, 2, 9, 1, 1, 8, 9, 1, 9]).double()  # the median is 2: above it are 9, 8, 9, 9
    zero = torch.zeros_like(residual)
    cells = [[0, 1], [3, 4], [5, 6]]  # single rows: 2, 7, 8
    wanted = sum(2 / 9 * losses.matching_unbiased(residual[one], zero[one]) for one in cells)
    torch.testing.assert_close(matching.penalty("by class and level", residual, zero, y, snr), wanted)


def test_no_weight_is_the_diffusion_loss_alone_and_arms_share_all_draws():
    pool, stack = small()
    members = pool.inside[::2]
    none, tiny, strong = (
        matching.fine_tune(matching.copied(stack), pool, members, HOW, Term("printed", gamma), 0)
        for gamma in (0.0, 1e-9, 50.0)
    )
    for a, b in zip(none.weights, tiny.weights, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    assert any(not torch.allclose(a, b, atol=1e-3) for a, b in zip(none.weights, strong.weights, strict=True))


def test_a_network_is_tuned_in_a_stack_as_alone():
    """Matching is a statistic of each network's own batch: a stack of two equal ones gives two equal gradients."""
    pool, _ = small()
    torch.manual_seed(1)
    one = generators.build(NETWORK, 1).unstack()[0]
    each = nets.Stack([one, one])
    rows = torch.randint(40, (16,), generator=generator())
    x0, noise = pool.images[rows], torch.randn(16, 6, generator=generator(1))
    gradient = []
    for net, times in ((nets.Stack([one]), 1), (each, 2)):
        net.requires_grad_()
        out = net(x0.repeat(times, 1) + noise.repeat(times, 1), 1.0).unflatten(0, (times, 16))
        eps_hat = (x0 + noise - out).flatten(0, 1).unflatten(0, (times, 16))
        parts = [matching.penalty("unbiased", part, noise, pool.labels[rows], torch.ones(16)) for part in eps_hat]
        gradient.append(torch.autograd.grad(sum(parts), net.weights, allow_unused=True))
    for alone, both in zip(*gradient, strict=True):
        if alone is not None:
            torch.testing.assert_close(both[0], alone[0])
            torch.testing.assert_close(both[1], alone[0])


def test_residuals_of_a_gaussian_and_their_mean():
    """D = 0 is wrong by x0: r = x0 / sigma, so E|r|^2 = E|x0|^2 / sigma^2, and |E r|^2 that of the mean image."""
    pool, stack = small()
    zero = nets.Stack([_Zero() for _ in range(2)])
    members = pool.inside[::2]
    spread = float(pool.images.std())
    found = matching.residual_energy(zero, pool, members, (0.5, 2.0), 50, 0)
    assert found.shape == (2, 2, 2) and found.dtype == torch.float64
    x = pool.images[members[0]]
    for row, level in zip(found[:, 0], (0.5 * spread, 2 * spread), strict=True):
        assert float(row[0]) == pytest.approx(float(x.square().sum(1).mean()) / level**2, rel=1e-4)
        assert float(row[1]) == pytest.approx(float(x.mean(0).square().sum()) / level**2, rel=0.05)


class _Zero(torch.nn.Module):
    """The denoiser that answers 0."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, sigma, y=None):
        return 0 * x * self.weight


def test_adapters_start_as_the_base_and_nothing_else_moves():
    pool, stack = small()
    members = pool.inside[::2]
    base = matching.fine_tune(matching.copied(stack), pool, members, HOW, Term("printed", 0.0), 0)
    adapted = matching.with_adapters(base, 2, 0)
    x, y = pool.images[:10].repeat(2, 1), pool.labels[:10].repeat(2)
    torch.testing.assert_close(adapted(x, 0.5, y), base(x, 0.5, y))
    start = {name: weight.clone() for name, weight in zip(adapted.names, adapted.weights, strict=True)}
    tuned = matching.fine_tune(matching.copied(adapted), pool, members, HOW, Term("printed", 0.05), 0)
    for name, weight in zip(tuned.names, tuned.weights, strict=True):
        moved = not torch.equal(weight, start[name])
        assert moved == (".up." in name or ".down." in name), name
    trained = sum(w[0].numel() for name, w in zip(tuned.names, tuned.weights, strict=True) if ".up." in name)
    assert trained and not torch.allclose(tuned(x, 0.5, y), base(x, 0.5, y))


def test_visual_guidance_reads_the_image_that_is_named():
    y, looks = torch.tensor([0, 1, 1]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    code = visual_guidance.ImageCode(y, looks, 2, 4)
    torch.nn.init.normal_(code.label.weight, generator=generator())
    torch.nn.init.normal_(code.look.weight, generator=generator(1))
    found = code(torch.tensor([0, 1, 2, 3]))
    torch.testing.assert_close(found[0], code.label.weight[0] + code.look.weight[:, 0])
    torch.testing.assert_close(found[2], code.label.weight[1])  # a descriptor of 0 says nothing
    torch.testing.assert_close(found[3], code.label.weight[2])  # none
    a, b = (visual_guidance.build(NETWORK, 2, y, one, 0) for one in (looks, 0 * looks))
    x = torch.randn(6, 6, generator=generator())
    torch.testing.assert_close(a(x, 1.0, torch.arange(3).repeat(2)), b(x, 1.0, torch.arange(3).repeat(2)))
    assert a(x, 1.0).shape == x.shape


# R2.

NETWORKS, TEST = 8, 219


def outcome(mmd2, answers):
    return Outcome(mmd2, torch.ones(NETWORKS).double(), answers)


def regime(draw, gain, better, gap=0.01, room=0.05, noise=0.0005):
    """Results by the true gain in MMD^2 and in accuracy, and the true gaps to the floor."""
    easy = torch.rand(TEST, generator=draw) < 0.85
    lost = torch.rand(NETWORKS, TEST, generator=draw)
    own = 0.01 + 0.001 * torch.randn(NETWORKS, generator=draw).double()
    spread = noise * torch.randn(NETWORKS, generator=draw).double()
    answers = easy & (lost > room)
    changed = torch.rand(NETWORKS, TEST, generator=draw)
    up, down = 0.01 + max(better, 0), 0.01 + max(-better, 0)
    term = torch.where(changed < up, True, torch.where(changed > 1 - down, False, answers))
    arms = {NONE: outcome(own, answers), STATED: outcome(own - gain + spread, term)}
    floor = outcome(own - gap + 0.0005 * torch.randn(NETWORKS, generator=draw).double(), easy.expand(NETWORKS, -1))
    share = torch.ones(1, NETWORKS, 2).double()
    one = Regime(arms, outcome(own, answers), floor, (1.0,), share, share)
    return {OTHER: one, SAME: replace(one)}


@pytest.mark.parametrize(
    ("results", "verdict"),
    [
        ((0.005, 0.15), "reproduced"),
        ((0.005, 0.0), "needs data or scale"),  # one of two outcomes
        ((-0.005, -0.1), "not reproduced"),  # worse
        ((0.0, 0.15), "needs data or scale"),
    ],
)
def test_r2_reaches_its_verdicts(results, verdict):
    claim = fine_tuning_rules.r2(regime(generator(), *results))
    assert claim.verdict == verdict and claim.n == NETWORKS
    assert f"*{verdict}*" in fine_tuning_rules.r2.__doc__.replace("\n    ", " ").replace("*N", "*n").replace("*R", "*r")


def test_r2_says_no_only_where_a_tenth_of_the_gap_is_excluded_too():
    results = regime(generator(), 0.0, 0.0, gap=0.05, room=0.5)
    same = {name: replace(one, arms=one.arms | {STATED: one.arms[NONE]}) for name, one in results.items()}
    spread = 1e-5 * torch.randn(NETWORKS, generator=generator()).double()
    near = replace(same[OTHER].arms[NONE], mmd2=same[OTHER].arms[NONE].mmd2 + spread)
    equal = {OTHER: replace(same[OTHER], arms=same[OTHER].arms | {STATED: near})}
    assert fine_tuning_rules.r2(equal).verdict == "not reproduced"
    loose = replace(near, mmd2=near.mmd2 + 0.02 * torch.randn(NETWORKS, generator=generator(1)).double())
    unsure = {OTHER: replace(same[OTHER], arms=same[OTHER].arms | {STATED: loose})}
    assert fine_tuning_rules.r2(unsure).verdict == "needs data or scale"


def test_r2_needs_a_gap_to_close():
    assert fine_tuning_rules.r2(regime(generator(), 0.005, 0.15, room=0.0)).verdict == "needs data or scale"
    noisy = regime(generator(), 0.005, 0.15)
    floor = replace(noisy[OTHER].floor, mmd2=noisy[OTHER].arms[NONE].mmd2 + 1e-3)
    noisy[OTHER] = replace(noisy[OTHER], floor=floor)
    assert fine_tuning_rules.r2(noisy).verdict == "needs data or scale"


def test_r2_is_seldom_called_reproduced_where_the_term_does_nothing():
    numbers, trials = generator(3), 200
    called = sum(fine_tuning_rules.r2(regime(numbers, 0.0, 0.0)).verdict == "reproduced" for _ in range(trials))
    assert called / trials <= 0.05 + 2 * (0.05 * 0.95 / trials) ** 0.5
    alone = sum(fine_tuning_rules.r2(regime(numbers, 0.005, 0.0)).verdict == "reproduced" for _ in range(trials))
    assert alone / trials <= 0.05 + 2 * (0.05 * 0.95 / trials) ** 0.5  # MMD alone is no reproduction


def test_arms_have_every_form():
    found = fine_tuning.terms((0.05, 5.0))
    assert found[NONE].gamma == 0 and found[STATED] == Term("printed", 0.05) and found["released"] == matching.RELEASED
    assert "by class and level 5" in found and len(found) == 8


# R6.


def ablated(draw, effects, room=0.1):
    """Results by the true main effects of the three, on images of which 3 in 4 are easy."""
    easy = torch.rand(TEST, generator=draw)
    arms = {}
    for arm in ("000", "001", "010", "011", "100", "101", "110", "111"):
        level = 0.7 + sum(gain for flag, gain in zip(arm, effects, strict=True) if flag == "1")
        arms[arm] = easy + 0.03 * torch.randn(NETWORKS, TEST, generator=draw) < level
    real = (easy + 0.03 * torch.randn(NETWORKS, TEST, generator=draw)) < 0.7 + room
    return ablation.Ablation(arms, {2.0: arms["111"]}, real)


@pytest.mark.parametrize(
    ("effects", "room", "verdict"),
    [
        ((0.05, 0.05, 0.05), 0.2, "reproduced"),
        ((0.05, 0.05, -0.05), 0.2, "not reproduced"),
        ((0.05, 0.05, 0.0), 0.2, "trend only"),
        ((0.05, 0.05, 0.05), -0.1, "needs data or scale"),
    ],
)
def test_r6_reaches_its_verdicts(effects, room, verdict):
    claim = fine_tuning_rules.r6(ablated(generator(1), effects, room))
    assert claim.verdict == verdict and claim.n == NETWORKS
    assert f"*{verdict}*" in " ".join(fine_tuning_rules.r6.__doc__.split()).lower()


def test_r6_is_seldom_called_reproduced_where_one_of_three_does_nothing():
    numbers, trials = generator(4), 200
    called = sum(fine_tuning_rules.r6(ablated(numbers, (0.05, 0.05, 0))).verdict == "reproduced" for _ in range(trials))
    assert called / trials <= 0.05 + 2 * (0.05 * 0.95 / trials) ** 0.5


def test_effects_are_means_over_the_other_factors():
    arms = {f"{a}{b}{c}": torch.full((1, 1), bool(a or (b and c))) for a in (0, 1) for b in (0, 1) for c in (0, 1)}
    found = ablation.Ablation(arms, {}, arms["111"])
    assert [float(ablation.effect(found, k)) for k in range(3)] == [0.75, 0.25, 0.25]
