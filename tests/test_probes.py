"""Probes against planted answers: codes whose classes are known to be readable, training whose pace is known."""

import pytest
import torch

from memlib import data, metrics, train
from memlib.errors import Refused
from memlib.papers.i2i import evaluation


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")[:1200]


def test_readable_codes_are_read_and_destroyed_ones_are_not(digits):
    codes, labels = digits.images.flatten(1), digits.labels
    hits = evaluation.linear_probe(codes[:800], labels[:800], codes[800:], labels[800:])
    assert hits.shape == (400,) and hits.dtype == torch.bool and hits.float().mean() > 0.9

    forgotten = torch.isin(labels, torch.tensor([3, 7]))
    noise = torch.randn(codes.shape, generator=torch.Generator().manual_seed(0))
    lost = torch.where(forgotten[:, None], noise, codes)
    mixed = evaluation.linear_probe(lost[:800], labels[:800], lost[800:], labels[800:])
    retain, forget = (evaluation.counted(mixed, labels[800:], c) for c in ([0, 1, 2, 4, 5, 6, 8, 9], [3, 7]))
    # 3 and 7 are known for noise, so they are told from digits but not from each other.
    assert retain.rate > 0.9 and forget.interval()[0] < 0.5 < forget.interval()[1]
    assert retain.n + forget.n == 400 and retain.k + forget.k == int(mixed.sum())
    rows, generator = forgotten[800:], torch.Generator().manual_seed(0)
    low, _ = metrics.paired_interval(hits[rows], mixed[rows], generator=generator)
    assert low > 0.2


def test_the_scale_of_a_code_does_not_matter():
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(200) % 2
    codes = torch.randn(200, 3, 4, generator=generator)
    codes[:, 0, 0] = 1e-6 * (labels + 0.1 * torch.randn(200, generator=generator))  # the only one that tells
    assert evaluation.linear_probe(codes[:100], labels[:100], codes[100:], labels[100:]).float().mean() > 0.9


def test_relearning_scores_where_asked_and_trains_no_further():
    def relearnt(steps):
        net = torch.nn.Linear(1, 1)
        torch.nn.init.zeros_(net.weight), torch.nn.init.zeros_(net.bias)
        running = train.fit(net, loss, steps, lr=0.1, schedule="constant")
        return net, running, lambda: net(torch.ones(1, 1)).item()

    def loss(net, generator):
        return (net(torch.ones(1, 1)) - 3).square().mean()

    _, running, score = relearnt(100)
    curve = dict(evaluation.relearning(running, score, at=(0, 1, 5, 40)))
    assert list(curve) == [0, 1, 5, 40]
    for steps in (1, 5, 40):  # as if training had been for that many
        _, running, score = relearnt(steps)
        list(running)
        assert curve[steps] == score()
    assert curve[0] == 0 and abs(curve[40] - 3) < 0.5 < abs(curve[5] - 3) < abs(curve[1] - 3)


def test_relearning_counts_steps():
    taken = []
    steps = (taken.append(k) for k in range(7))
    curve = list(evaluation.relearning(steps, lambda: len(taken), at=(0, 2, 3, 50, 60)))
    assert curve == [(0, 0), (2, 2), (3, 3)]  # training ended before 50
    taken.clear()
    first = next(evaluation.relearning((taken.append(k) for k in range(7)), lambda: len(taken), at=(4, 5)))
    assert first == (4, 4)


def test_separation_of_planted_distances():
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(300, 8, generator=generator)

    def moved(by):
        return truth + by * torch.randn(300, 8, generator=generator)

    area, (low, high) = evaluation.truth_separation(moved(0.1), truth, moved(3.0), truth)
    assert area > 0.99 and low > 0.97 and high <= 1
    area, (low, high) = evaluation.truth_separation(moved(0.5), truth, moved(0.5), truth)
    assert low < 0.5 < high
    area, (low, high) = evaluation.truth_separation(moved(3.0), truth, moved(0.1), truth)
    assert high < 0.05


def test_separation_is_the_share_of_ordered_pairs():
    near, far = torch.tensor([0.1, 0.6, 1.0]), torch.tensor([0.5, 0.9])  # angles from the truth
    truth = torch.tensor([[1.0, 0.0]])
    turned = [torch.stack([angles.cos(), angles.sin()], 1) for angles in (near, far)]
    area, _ = evaluation.truth_separation(turned[0], truth.expand(3, 2), 5 * turned[1], truth.expand(2, 2))
    assert area == pytest.approx(3 / 6)  # .5 > .1; .9 > .1, .6


def test_refusals():
    x, y = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1] * 3)
    with pytest.raises(Refused, match=r"\(6, 3\), \(5,\)"):
        evaluation.linear_probe(x, y[:5], x, y)
    with pytest.raises(Refused, match="one label"):
        evaluation.linear_probe(x, torch.zeros(6), x, y)
    with pytest.raises(Refused, match="NaN"):
        evaluation.linear_probe(x * torch.nan, y, x, y)
    with pytest.raises(Refused, match=r"none of the 6 labels is among the classes \[7\]"):
        evaluation.counted(y.bool(), y, [7])
    with pytest.raises(Refused, match=r"must rise from 0 or more, not \[5, 5\]"):
        next(evaluation.relearning([], lambda: 0.0, at=(5, 5)))
    with pytest.raises(Refused, match="pair up"):
        evaluation.truth_separation(x, x[:5], x, x)
