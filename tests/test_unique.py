"""Distinct images among N_G samples: the formula, rarefaction and extrapolation against simulation and by hand."""

from itertools import combinations

import pytest
import torch

from memlib import metrics
from memlib.errors import Refused


def test_formula_against_simulation():
    g = torch.Generator().manual_seed(0)
    p = torch.rand(30, generator=g, dtype=torch.float64)
    p = 0.6 * p / p.sum()    # four samples in ten resemble nothing
    sizes = torch.tensor([1, 10, 100])
    draws = torch.multinomial(torch.cat([p, torch.tensor([0.4])]), 2000 * 100, True, generator=g).reshape(2000, 100)
    counted = torch.stack([torch.tensor([len(set(r[:n].tolist()) - {30}) for r in draws]).double() for n in sizes])
    gap = metrics.expected_unique(p, sizes) - counted.mean(1)
    assert (gap.abs() < 4 * counted.std(1) / 2000**0.5).all()
    torch.testing.assert_close(metrics.expected_unique(p, sizes[:1]), p.sum()[None])
    assert metrics.expected_unique(torch.tensor([1.0, 0.0]), torch.tensor([0, 3])).tolist() == [0.0, 1.0]


def test_rarefaction_is_the_average_over_all_sub_runs():
    run = [0, 0, 0, 1, 1, 2, None]    # seven samples, six of them hits
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
