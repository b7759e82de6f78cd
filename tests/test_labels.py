"""How much labels tell: theorem 1's ratio by hand, as eq. 50 says with numpy's covariances, for labels by chance."""

import numpy as np
import pytest
import torch

from memlib import metrics
from memlib.errors import Refused


def test_by_hand():
    """Points at -3, -1, 1, 3: the whole has variance 5, each half variance 1 about a mean 2 away."""
    points, labels = torch.tensor([-3.0, -1, 1, 3]), torch.tensor([0, 0, 1, 1])
    assert metrics.label_ratio(points, labels) == pytest.approx(2 / (1 + 4 + 5))
    assert metrics.theorem_limit(*torch.tensor([1.0, 4.0, 5.0])).item() == pytest.approx(0.2)
    assert metrics.label_ratio(points, torch.zeros(4, dtype=torch.int64)) == 1
    assert metrics.label_ratio(points, torch.arange(4)) == 0
    assert metrics.label_ratio(points.tolist(), [7, 7, -2, -2]) == pytest.approx(0.2)  # labels need not count from 0


@pytest.mark.parametrize("seed", range(3))
def test_it_is_eq_50_summed_over_classes(seed):
    g = torch.Generator().manual_seed(seed)
    points, labels = 5 + torch.randn(60, 2, 3, generator=g).double(), torch.randint(4, (60,), generator=g)
    points[labels == 1] *= 0.2
    rows, parts = points.flatten(1).numpy(), np.zeros(2)
    for label in range(4):
        own = rows[labels.numpy() == label]
        for i, some in enumerate((own, rows)):
            parts[i] += np.sum((own - some.mean(0)) ** 2) + len(own) * np.trace(np.cov(some.T, bias=True))
    assert metrics.label_ratio(points, labels) == pytest.approx(parts[0] / parts[1])


@pytest.mark.parametrize("size", [2, 5, 50])
def test_labels_by_chance_have_the_ratio_of_their_size(size):
    g = torch.Generator().manual_seed(1)
    points = torch.randn(2000, 8, generator=g)
    labels = (torch.arange(2000) // size)[torch.randperm(2000, generator=g)]
    count = 2000 // size  # the variance between classes is 8 (count - 1) in the mean, with a variance of 16 (count - 1)
    error = 4 * (16 * count) ** 0.5 / (8 * 2000)
    assert metrics.label_ratio(points, labels) == pytest.approx(1 - (count - 1) / 1999, abs=error)


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
        metrics.label_ratio(points, labels)
