"""A classifier trained in seconds: what it answers, what its seed means, and what it refuses."""

import pytest
import torch

from memlib import data, features, metrics
from memlib.errors import Refused
from memlib.features._classifier import _moved


@pytest.fixture(scope="module")
def parts():
    return data.split(data.load("digits"), {"train": 600, "held": 298}, half="explore")


@pytest.fixture(scope="module")
def judge(parts):
    return features.classifier(parts["train"].images, parts["train"].labels)


def test_digits_are_read_and_confidence_matches(judge, parts):
    accuracy, confidence = features.held_out(judge, parts["held"].images, parts["held"].labels)
    assert accuracy.n == 298 and accuracy.rate >= 0.97
    low, high = accuracy.interval()
    assert low - 0.01 < confidence < high + 0.01


def test_what_a_classifier_answers(judge, parts):
    images = parts["held"].images
    logits, features_ = judge.logits(images), judge.embed(images)
    assert logits.shape == (298, 10) and features_.shape == (298, judge.head.in_features)
    torch.testing.assert_close(judge.head(features_), logits)  # the embedding is what the last layer sees
    torch.testing.assert_close(judge.probabilities(images).sum(1), torch.ones(298))
    assert not logits.requires_grad and not judge.training and not any(p.requires_grad for p in judge.parameters())
    torch.testing.assert_close(judge.logits(images[:3]), logits[:3])  # no statistics of the batch
    score, _ = metrics.inception_score(judge.probabilities(images), 1)
    assert 8 < score <= 10


def test_gradients_pass_through_a_frozen_judge(judge, parts):
    images = parts["held"].images[:4].clone().requires_grad_()
    judge(images).sum().backward()
    assert images.grad.abs().sum() > 0


def test_noise_lies_farther_than_held_out_digits(judge, parts):
    train, held = judge.embed(parts["train"].images), judge.embed(parts["held"].images)
    noise = torch.rand(298, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert metrics.frechet_distance(train, judge.embed(noise)) > 5 * metrics.frechet_distance(train, held)


def test_the_seed_is_the_network(parts):
    images, labels = parts["train"].images, parts["train"].labels

    def first(seed):
        torch.rand(3)  # what else is drawn does not matter
        return features.classifier(images, labels, steps=3, width=4, seed=seed).logits(images[:5])

    assert torch.equal(first(0), first(0)) and not torch.equal(first(0), first(1))


@pytest.mark.parametrize(("shape", "classes"), [((3, 32, 32), 20), ((1, 28, 28), 10), ((3, 16, 16), 2), ((1, 4, 4), 2)])
def test_other_shapes_and_attributes(shape, classes):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % classes
    images = torch.randn(120, *shape, generator=generator) * 0.1
    images[:, 0, 0, 0] = labels / classes
    net = features.classifier(images, labels, steps=2, width=4, batch=16)
    assert net.logits(images).shape == (120, classes) and net.embed(images).shape[0] == 120


def test_an_attribute_is_learned(parts):
    even = parts["train"].labels % 2
    net = features.classifier(parts["train"].images, even.bool(), steps=100, width=16)
    assert features.held_out(net, parts["held"].images, parts["held"].labels % 2).accuracy.rate > 0.9


def test_moves_are_those_of_roll_but_for_the_edge():
    images = torch.arange(2 * 1 * 4 * 5.0).view(2, 1, 4, 5)
    moved = _moved(images, torch.tensor([1, 0]), torch.tensor([0, -1]))
    assert torch.equal(moved[0, 0, 1:], images[0, 0, :-1]) and torch.equal(moved[0, 0, 0], images[0, 0, 0])
    assert torch.equal(moved[1, ..., :-1], images[1, ..., 1:]) and torch.equal(moved[1, ..., -1], images[1, ..., -1])


def test_classifier_refusals():
    with pytest.raises(Refused, match=r"\(3, 1, 8, 8\) and \(2,\)"):
        features.classifier(torch.zeros(3, 1, 8, 8), torch.zeros(2))
    with pytest.raises(Refused, match="two classes or more"):
        features.classifier(torch.zeros(3, 1, 8, 8), torch.zeros(3))
