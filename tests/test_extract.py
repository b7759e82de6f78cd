"""SIDE's guided sweep against closed forms on mixtures, and the scores against hand-made images."""

import pytest
import torch

from memlib import metrics, noise, sample
from memlib.analytic import GaussianMixture
from memlib.errors import Refused
from memlib.papers.side import attack

MEANS = torch.tensor([[-3.0, 0.0], [1.0, 2.0], [2.0, -2.0]], dtype=torch.float64)
MIXTURE = GaussianMixture(MEANS, torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64), 0.7)
SIGMAS = noise.karras(20, 0.02, 10.0).double()


def bayes(x, sigma):
    """Logits that are exact: log p(component | x) at this level."""
    return MIXTURE.posterior(x, sigma).log()


def starts(n):
    return SIGMAS[0] * noise.seeded(range(n))(torch.empty(n, 2, dtype=torch.float64))


def test_the_bayes_classifier_at_weight_1_gives_the_conditional_model():
    labels = torch.arange(30) % 3
    swept = attack.sweep(MIXTURE, bayes, starts(30), labels, [0.0, 1.0], SIGMAS)
    unguided = sample.ancestral(MIXTURE, starts(30), SIGMAS)
    torch.testing.assert_close(swept[:, 0], unguided, atol=1e-8, rtol=0)
    for label in range(3):
        alone = GaussianMixture(MEANS[label : label + 1], torch.ones(1, dtype=torch.float64), 0.7)
        rows = labels == label
        torch.testing.assert_close(swept[rows, 1], sample.ancestral(alone, starts(30)[rows], SIGMAS), atol=1e-8, rtol=0)


def test_the_weight_is_a_power_of_the_posterior():
    """score + w grad log p(y | x), one Euler step written out."""
    x, labels = starts(8), torch.arange(8) % 3
    one_step = torch.tensor([SIGMAS[0], 0.0], dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    log_p = bayes(leaf, SIGMAS[0])[torch.arange(8), labels].sum()
    gradient = torch.autograd.grad(log_p, leaf)[0]
    wanted = MIXTURE(x, SIGMAS[0]) + 2.5 * SIGMAS[0] ** 2 * gradient
    torch.testing.assert_close(attack.sweep(MIXTURE, bayes, x, labels, [2.5], one_step)[:, 0], wanted)


def test_rows_of_weight_0_are_the_unguided_rows_bitwise_and_skip_the_classifier():
    asked = []

    def counting(x, sigma):
        asked.append(len(x))
        return bayes(x, sigma)

    labels = torch.arange(6) % 3
    swept = attack.sweep(MIXTURE, counting, starts(6), labels, [0.0, 4.0, 0.0], SIGMAS)
    unguided = attack.sweep(MIXTURE, bayes, starts(6), labels, [0.0, 0.0, 0.0], SIGMAS)
    assert torch.equal(swept[:, 0], unguided[:, 0]) and torch.equal(swept[:, 2], unguided[:, 2])
    assert not torch.equal(swept[:, 1], unguided[:, 1])
    assert asked == [6] * 20  # one row in three, the first step shared
    asked.clear()
    attack.sweep(MIXTURE, counting, starts(6), labels, [0.0], SIGMAS)
    assert asked == []


def test_an_overflowing_gradient_leaves_the_unguided_rows_alone():
    def broken(x, sigma):
        return torch.stack([x.sum(1) * torch.inf, x.sum(1)], 1)

    swept = attack.sweep(MIXTURE, broken, starts(4), torch.zeros(4).long(), [0.0, 1.0], SIGMAS)
    assert swept[:, 0].isfinite().all() and not swept[:, 1].isfinite().any()


def test_a_sweep_is_that_of_each_weight_alone():
    labels = torch.arange(6) % 3
    together = attack.sweep(MIXTURE, bayes, starts(6), labels, [0.5, 3.0], SIGMAS)
    for i, weight in enumerate([0.5, 3.0]):
        alone = attack.sweep(MIXTURE, bayes, starts(6), labels, [weight], SIGMAS)[:, 0]
        torch.testing.assert_close(together[:, i], alone)


def test_a_sweep_of_other_shapes_is_refused():
    with pytest.raises(Refused, match="a label for each of 4 starts"):
        attack.sweep(MIXTURE, bayes, starts(4), torch.zeros(3).long(), [1.0], SIGMAS)


def test_labels_are_uniform_and_belong_to_the_sample():
    labels = attack.uniform_labels(noise.seeded(range(30_000)), 30_000, 10)
    counts = torch.bincount(labels, minlength=10).double()
    assert ((counts - 3000).square() / 3000).sum() < 27.9  # chi-square with 9 degrees of freedom: p > 0.001
    some = attack.uniform_labels(noise.seeded([7, 29_999, 0]), 3, 10)
    assert some.tolist() == labels[[7, 29_999, 0]].tolist()
    with pytest.raises(Refused, match="not 0"):
        attack.uniform_labels(noise.seeded([0]), 1, 0)


def test_labels_are_drawn_from_those_in_use_alone():
    """Of five labels two are ever given to an image; the draw is the one among as many labels from 0."""
    targets = torch.tensor([[0.1, 0.7, 0.2, 0, 0], [0, 0.9, 0.1, 0, 0], [0, 0, 0.1, 0, 0.9]])
    assert attack.in_use(targets).tolist() == [1, 4]
    drawn = attack.uniform_labels(noise.seeded(range(1000)), 1000, attack.in_use(targets))
    plain = attack.uniform_labels(noise.seeded(range(1000)), 1000, 2)
    assert torch.equal(drawn, torch.tensor([1, 4])[plain]) and drawn.unique().tolist() == [1, 4]
    with pytest.raises(Refused, match="at least one label"):
        attack.uniform_labels(noise.seeded([0]), 1, torch.zeros(0).long())


def test_a_samples_own_label_is_that_of_its_unguided_end():
    """Ends of the mixture's sampler lie at a component, whose exact posterior names it."""
    ends = sample.ancestral(MIXTURE, starts(1500), SIGMAS)
    own = attack.own_labels(bayes, ends, SIGMAS[-2])
    assert torch.equal(own, MIXTURE.posterior(ends, SIGMAS[-2]).argmax(1))
    share = torch.bincount(own, minlength=3).double() / 1500
    torch.testing.assert_close(share, torch.tensor([0.5, 0.2, 0.3]).double(), atol=0.06, rtol=0)


def test_own_labels_keep_a_start_where_it_would_have_ended():
    """At weight 1 a start guided to its own label ends in the same component, and one guided by chance often not."""
    ends = sample.ancestral(MIXTURE, starts(300), SIGMAS)
    own = attack.own_labels(bayes, ends, SIGMAS[-2])
    home = (ends[:, None] - MEANS).norm(dim=2).argmin(1)
    stay = {}
    for name, labels in {"own": own, "chance": torch.arange(300) % 3}.items():
        moved = attack.sweep(MIXTURE, bayes, starts(300), labels, [1.0], SIGMAS)[:, 0]
        stay[name] = float(((moved[:, None] - MEANS).norm(dim=2).argmin(1) == home).double().mean())
    assert stay["own"] > 0.95 and stay["chance"] < 0.6


def test_labels_do_not_depend_on_the_start():
    fresh = noise.seeded(range(20_000))
    first = fresh(torch.empty(20_000, 2))[:, 0]
    labels = attack.uniform_labels(fresh, 20_000, 2)
    assert abs(first[labels == 1].mean() - first[labels == 0].mean()) < 0.06  # 4 standard errors


def test_scores_by_hand_whole_or_in_batches():
    members, non_members = torch.eye(4)[:2, None, None], torch.eye(4)[2:, None, None]  # (2, 1, 1, 4)
    samples = torch.tensor([[1.0, 0, 0, 0], [0, 2.0, 0, 0], [0, 3.0, 0, 4.0]])[:, None, None]
    whole = attack.similarities(samples, lambda x: x.flatten(1), members, non_members)
    assert whole.nearest.tolist() == [0, 1, 1]
    torch.testing.assert_close(whole.similarity, torch.tensor([1.0, 1.0, 0.6]))
    torch.testing.assert_close(whole.distance, torch.tensor([0.0, 1.0, 20**0.5]))  # to the same member
    torch.testing.assert_close(whole.to_non_members, torch.tensor([0.0, 0.0, 0.8]))
    torch.testing.assert_close(whole.from_non_members, torch.tensor([2**0.5, 5**0.5, 18**0.5]))
    near, wide = metrics.Joint(0.9, 0.5), metrics.Joint(0.5, 1.0)
    assert whole.hits(metrics.Joint(0.9, torch.inf)).tolist() == [
        0,
        1,
        -1,
    ]  # the second is twice as bright as its member
    assert whole.hits(near).tolist() == [0, -1, -1] and whole.hits(wide).tolist() == [0, 1, -1]
    assert whole.hits(wide, above=near).tolist() == [-1, 1, -1]  # a band ends where the next begins
    assert whole.resembles_others(metrics.Joint(0.7, 5.0)).tolist() == [False, False, True]
    parts = attack.similarities(samples.split(2), lambda x: x.flatten(1), members, non_members)
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))
    assert metrics.ums(whole.hits(wide), 3).k == 2 and metrics.ums(whole.hits(near), 3).k == 1  # -1 is no image


def test_weight_0_alone_is_the_sampler_itself_bitwise():
    swept = attack.sweep(MIXTURE, bayes, starts(6), torch.arange(6) % 3, [0.0], SIGMAS)
    assert torch.equal(swept[:, 0], sample.ancestral(MIXTURE, starts(6), SIGMAS))
