"""How much labels tell: theorem 1's ratio by hand, against numpy's covariances, and against labels drawn by chance."""

import numpy as np
import pytest
import torch

from memlib import metrics
from memlib.errors import Refused


def test_by_hand():
    """Points at -3, -1, 1, 3: the whole has variance 5, each half variance 1 about a mean 2 away."""
    points, labels = torch.tensor([-3.0, -1, 1, 3]), torch.tensor([0, 0, 1, 1])
    torch.testing.assert_close(metrics.label_ratios(points, labels), torch.full((2,), 2 / (1 + 4 + 5)))
    assert metrics.label_ratios(points, torch.zeros(4, dtype=torch.int64)).tolist() == [1.0]
    assert metrics.label_ratios(points, torch.arange(4)).tolist() == [0.0] * 4
    assert metrics.label_ratios(points.tolist(), [7, 7, -2, -2]).shape == (2,)  # labels need not be numbered from 0


def test_against_covariances_of_numpy():
    g = torch.Generator().manual_seed(0)
    points, labels = 5 + torch.randn(60, 2, 3, generator=g).double(), torch.randint(4, (60,), generator=g)
    rows, expected = points.flatten(1).numpy(), []
    whole = np.trace(np.cov(rows.T, bias=True))
    for label in range(4):
        own = rows[labels.numpy() == label]
        trace, gap = np.trace(np.cov(own.T, bias=True)), np.sum((own.mean(0) - rows.mean(0)) ** 2)
        expected.append(2 * trace / (trace + gap + whole))
    torch.testing.assert_close(metrics.label_ratios(points, labels), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("size", [2, 5, 50])
def test_labels_by_chance_have_the_ratio_of_their_size(size):
    g = torch.Generator().manual_seed(1)
    points = torch.randn(2000, 8, generator=g)
    labels = (torch.arange(2000) // size)[torch.randperm(2000, generator=g)]
    assert abs(float(metrics.label_ratios(points, labels).mean()) - (1 - 1 / size)) < 0.05 / size


@pytest.mark.parametrize(
    ("points", "labels", "words"),
    [
        (torch.ones(3, 2), torch.arange(3), "all points are equal"),
        (torch.tensor([0.0, torch.nan]), torch.arange(2), "must be finite"),
        (torch.randn(3, 2), torch.arange(2), "one label"),
        (torch.empty(0, 2), torch.arange(0), "one label"),
        (torch.randn(3, 2), torch.rand(3), "integers"),
        (torch.randn(3, 2), torch.ones(3, dtype=torch.bool), "integers"),
    ],
)
def test_points_and_labels_that_do_not_fit_are_refused(points, labels, words):
    with pytest.raises(Refused, match=words):
        metrics.label_ratios(points, labels)
