"""The joint threshold against counts by hand, its two closed forms, and an exhaustive search."""

import pytest
import torch

from memlib import metrics
from memlib.errors import Refused


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_by_hand():
    """Ten images, whose joint ranks are 3, 2, 3, 5, 5, 7, 7, 8, 9, 10."""
    similarity = torch.arange(10.0, 0, -1)
    distance = torch.tensor([3.0, 2, 1, 5, 4, 7, 6, 8, 9, 10])
    found = metrics.joint_threshold(similarity, distance, 0.3)  # three may pass: rank 4 and not 5
    assert 6 < found.similarity <= 7 and 4 <= found.distance < 5  # four pass each test alone
    assert found.passed(similarity, distance).tolist() == [True] * 3 + [False] * 7
    fewer = metrics.joint_threshold(similarity, distance, 0.2)  # two may pass, but the second and third tie at 3
    assert fewer.passed(similarity, distance).nonzero().tolist() == [[1]]
    assert 8 < fewer.similarity <= 9 and 2 <= fewer.distance < 3


def test_measures_that_agree_give_the_threshold_of_either():
    similarity = torch.rand(1000, generator=generator(), dtype=torch.float64)
    found = metrics.joint_threshold(similarity, 1 - similarity, 0.01)
    assert int((similarity >= found.similarity).sum()) == 10
    alone = similarity >= metrics.threshold(similarity, 0.01)
    assert torch.equal(alone, similarity >= found.similarity)
    assert int(found.passed(similarity, 1 - similarity).sum()) == 10


def test_independent_measures_let_the_square_root_through():
    """P(both among the first r of M) = (r/M)^2, so each test alone lets sqrt(fpr) through: 10 % for 1 %."""
    one, other = torch.rand(2, 200_000, generator=generator(), dtype=torch.float64)
    found = metrics.joint_threshold(one, other, 0.01)
    assert 1 - found.similarity == pytest.approx(0.1, abs=0.003) and found.distance == pytest.approx(0.1, abs=0.003)
    assert found.passed(one, other).sum() <= 2000


@pytest.mark.parametrize("seed", range(20))
def test_it_is_the_largest_rank_that_keeps_the_rate_ties_included(seed):
    """An exhaustive search over ranks, on few distinct values."""
    draw = torch.randint(12, (2, 60), generator=generator(seed)).double()
    similarity, distance = draw[0], draw[1]
    ranks = [(sum(similarity >= s), sum(distance <= d)) for s, d in zip(similarity, distance, strict=True)]
    joint = [int(max(pair)) for pair in ranks]
    best = max(r for r in range(61) if sum(one <= r for one in joint) <= 6)
    wanted = [one <= best for one in joint]
    assert metrics.joint_threshold(similarity, distance, 0.1).passed(similarity, distance).tolist() == wanted


def test_a_caricature_and_a_ghost_fail_and_a_copy_passes():
    """Right direction and wrong length; right length and wrong direction; both right."""
    member, others = torch.tensor([3.0, 4.0]), torch.randn(500, 2, generator=generator())
    cosine = torch.nn.functional.cosine_similarity(others, member[None])
    edges = metrics.joint_threshold(cosine, (others - member).norm(dim=1), 0.05)
    tried = torch.stack([3 * member, torch.tensor([4.0, -3.0]), 1.05 * member])
    said = edges.passed(torch.nn.functional.cosine_similarity(tried, member[None]), (tried - member).norm(dim=1))
    assert said.tolist() == [False, False, True]


def test_an_infinite_distance_asks_for_the_similarity_alone():
    edges = metrics.Joint(0.5, float("inf"))
    assert edges.passed(torch.tensor([0.4, 0.5, float("nan")]), torch.tensor([0.0, 1e9, 0.0])).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("similarity", "distance", "fpr", "said"),
    [
        (torch.zeros(0), torch.zeros(0), 0.1, "two measures"),
        (torch.rand(20), torch.rand(19), 0.1, "two measures"),
        (torch.rand(20, 1), torch.rand(20, 1), 0.1, "two measures"),
        (torch.rand(20), torch.rand(20), 0.01, "at least 100"),
        (torch.rand(20), torch.rand(20), 1.0, "between 0 and 1"),
        (torch.full((20,), float("nan")), torch.rand(20), 0.1, "NaN"),
    ],
)
def test_refusals(similarity, distance, fpr, said):
    with pytest.raises(Refused, match=said):
        metrics.joint_threshold(similarity, distance, fpr)


def test_all_alike_pass_nothing():
    """Every image has the last rank, so the threshold stands before all of them."""
    same = torch.ones(20)
    assert not metrics.joint_threshold(same, same, 0.1).passed(same, same).any()
