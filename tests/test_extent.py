"""How far memorization reaches: the bisection on known fractions; distinct images against simulation and by hand."""

from itertools import combinations

import pytest
import torch

from memlib import metrics
from memlib.errors import Refused


def falling(edge):
    """A fraction that reaches 90 % up to `edge` images."""
    return lambda n: metrics.Count(95, 100) if n <= edge else metrics.Count(60, 100)


@pytest.mark.parametrize("edge", [10, 11, 57, 299, 399])
def test_it_brackets_the_edge(edge):
    found = metrics.emm(falling(edge), 10, 400, ratio=1.05)
    assert found.size <= edge < found.above
    assert found.above / found.size <= 1.05 or found.above - found.size == 1
    sizes = [n for n, _ in found.trace]
    assert sizes[:2] == [10, 400] and len(set(sizes)) == len(sizes) <= 10
    assert all(isinstance(fraction, metrics.Count) for _, fraction in found.trace)


def test_open_ends_are_said():
    assert metrics.emm(falling(5), 10, 400)[:2] == (0, 10)
    assert metrics.emm(falling(900), 10, 400)[:2] == (400, None)
    assert len(metrics.emm(falling(5), 10, 400).trace) == 1


def test_numbers_will_do_and_the_level_itself_counts():
    assert metrics.emm(lambda n: 0.9 if n < 40 else 0.5, 2, 100, ratio=1.001)[:2] == (39, 40)


@pytest.mark.parametrize("wrong", [(0, 5, 0.9, 1.2), (5, 5, 0.9, 1.2), (1, 5, 0.0, 1.2), (1, 5, 0.9, 1.0)])
def test_settings_without_sense_are_refused(wrong):
    with pytest.raises(Refused):
        metrics.emm(falling(3), *wrong)


def test_formula_against_simulation():
    g = torch.Generator().manual_seed(0)
    p = torch.rand(30, generator=g, dtype=torch.float64)
    p = 0.6 * p / p.sum()  # four samples in ten resemble nothing
    sizes = torch.tensor([1, 10, 100])
    draws = torch.multinomial(torch.cat([p, torch.tensor([0.4])]), 2000 * 100, True, generator=g).reshape(2000, 100)
    counted = torch.stack([torch.tensor([len(set(r[:n].tolist()) - {30}) for r in draws]).double() for n in sizes])
    gap = metrics.expected_unique(p, sizes) - counted.mean(1)
    assert (gap.abs() < 4 * counted.std(1) / 2000**0.5).all()
    torch.testing.assert_close(metrics.expected_unique(p, sizes[:1]), p.sum()[None])
    assert metrics.expected_unique(torch.tensor([1.0, 0.0]), torch.tensor([0, 3])).tolist() == [0.0, 1.0]


def test_rarefaction_is_the_average_over_all_sub_runs():
    run = [0, 0, 0, 1, 1, 2, None]  # seven samples, six of them hits
    for size in range(1, 8):
        subsets = [len(set(s) - {None}) for s in combinations(run, size)]
        got = metrics.extrapolate_unique(torch.tensor([3, 2, 1, 0]), 7, torch.tensor([size]))
        assert abs(got.item() - sum(subsets) / len(subsets)) < 1e-9


def test_extrapolation_comes_closer_than_the_observed_frequencies():
    g = torch.Generator().manual_seed(0)
    p = 1 / torch.arange(1.0, 201.0).double()
    p /= p.sum()
    target = torch.tensor([1500])
    truth, chao, plug_in = metrics.expected_unique(p, target).item(), [], []
    for _ in range(50):
        hits = torch.bincount(torch.multinomial(p, 500, True, generator=g), minlength=200)
        chao.append(metrics.extrapolate_unique(hits, 500, target).item() - truth)
        plug_in.append(metrics.expected_unique(hits / 500, target).item() - truth)
    assert abs(sum(chao)) / 50 < 0.5 * abs(sum(plug_in)) / 50


def test_nothing_new_is_expected_where_everything_was_seen_often():
    got = metrics.extrapolate_unique(torch.tensor([50, 50]), 100, torch.tensor([100, 10_000]))
    assert got.tolist() == [2.0, 2.0]
    with pytest.raises(Refused, match="101 hits cannot come from 100 samples"):
        metrics.extrapolate_unique(torch.tensor([101]), 100, torch.tensor([1]))


def test_the_difference_of_two_arms_by_hand():
    a, b = torch.tensor([0, 0, 1, 2, -1]), torch.tensor([5, -1, -1, 5, -1])
    difference, (low, high) = metrics.unique_difference(a, b)
    assert difference == 2
    left_out = []  # the jackknife itself, one sample left out at a time
    for i in range(5):
        rest = [torch.cat([arm[:i], arm[i + 1 :]]) for arm in (a, b)]
        left_out.append(len(set(rest[0].tolist()) - {-1}) - len(set(rest[1].tolist()) - {-1}))
    lost = difference - torch.tensor(left_out)  # a loses image 1 or 2, b none: two pairs of five differ
    assert lost.tolist() == [0, 0, 1, 1, 0]
    ends = metrics.paired_interval(lost, torch.zeros(5))
    assert (low, high) == pytest.approx((5 * ends[0], 5 * ends[1]))
    assert metrics.unique_difference(a, a)[1] == pytest.approx((-5 * 3.841459 / 8.841459, 5 * 3.841459 / 8.841459))
    with pytest.raises(Refused, match="pair"):
        metrics.unique_difference(a, b[:4])


def test_the_difference_has_the_jackknifes_width_where_many_stand_alone():
    g = torch.Generator().manual_seed(0)
    a, b = (torch.where(torch.rand(4000, generator=g) < rate, torch.arange(4000), -1) for rate in (0.5, 0.3))
    difference, (low, high) = metrics.unique_difference(a, b)
    lost = (a >= 0).double() - (b >= 0).double()
    half = 1.959964 * float((3999 / 4000 * (lost - lost.mean()).square().sum()).sqrt())
    assert difference == lost.sum()
    assert (high - difference, difference - low) == pytest.approx((half, half), rel=0.01)


@pytest.mark.parametrize("rates", [(0.02, 0.02), (0.02, 0.005), (0.005, 0.005)])
def test_the_difference_covers_at_small_rates(rates):
    """Every hit is of an image of its own, N = 100; without any hit the jackknife has no width."""
    g = torch.Generator().manual_seed(0)
    covered, true = 0, 100 * (rates[0] - rates[1])
    for _ in range(1000):
        a, b = (torch.where(torch.rand(100, generator=g) < rate, torch.arange(100), -1) for rate in rates)
        low, high = metrics.unique_difference(a, b)[1]
        covered += low <= true <= high
    assert covered >= 930


def test_what_is_no_hit_and_no_fraction_is_refused():
    with pytest.raises(Refused, match="-2 is no training index"):
        metrics.unique_difference(torch.tensor([0, -2]), torch.tensor([0, 1]))
    with pytest.raises(Refused, match="cannot be hit -1 times: give counts"):
        metrics.extrapolate_unique(torch.tensor([3, -1]), 5, torch.tensor([2]))
    with pytest.raises(Refused, match="between 0 and 1: give hits divided by samples"):
        metrics.expected_unique(torch.tensor([0.5, 3.0]), torch.tensor([2]))
    for wrong in (90.0, float("nan")):
        with pytest.raises(Refused, match="the memorized fraction of 2 images lies between 0 and 1"):
            metrics.emm(lambda n, wrong=wrong: wrong, 2, 9)


def test_the_difference_covers_the_true_one():
    g = torch.Generator().manual_seed(1)
    weights = torch.rand(2, 80, generator=g, dtype=torch.float64) ** 3
    p = torch.tensor([[0.5], [0.3]]) * weights / weights.sum(1, keepdim=True)
    expected = [metrics.expected_unique(q, torch.tensor([400])).item() for q in p]
    true = expected[0] - expected[1]
    covered = 0
    for _ in range(200):
        arms = [torch.multinomial(torch.cat([q, 1 - q.sum()[None]]), 400, True, generator=g) for q in p]
        low, high = metrics.unique_difference(*(torch.where(arm == 80, -1, arm) for arm in arms))[1]
        covered += low <= true <= high
    assert covered >= 183  # 95 % of 200, less three standard deviations; the jackknife errs upwards
