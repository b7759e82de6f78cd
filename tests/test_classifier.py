"""The judge: it learns real digits, its logits are linear in its features, and the same seed gives the same."""

import pytest
import torch

from memlib import data, features
from memlib.errors import Refused


@pytest.fixture(scope="module")
def judge():
    parts = data.split(data.load("digits"), {"train": 600, "test": 298})
    train, test = parts.values()
    return features.fit_classifier(train.images, train.labels, 10, steps=250), test.images, test.labels


def test_it_knows_digits_that_it_never_saw(judge):
    net, images, labels = judge
    assert (net.predict(images) == labels).double().mean() > 0.93
    assert not any(p.requires_grad for p in net.parameters())


def test_logits_are_linear_in_the_features_and_batches_do_not_matter(judge):
    net, images, _ = judge
    rows = net.embed(images[:50], batch=7)
    assert rows.shape == (50, 128)
    torch.testing.assert_close(net.head(rows), net(images[:50]), rtol=1e-4, atol=1e-4)
    assert torch.equal(net.predict(images[:50]), net(images[:50]).argmax(1))


def test_the_place_of_a_stroke_counts(judge):
    net, images, _ = judge
    assert not torch.allclose(net.embed(images[:5]), net.embed(images[:5].flip(-1)), atol=1e-2)


def test_the_seed_decides(judge):
    net, images, _ = judge
    digits = data.load("digits")
    first, again, other = (
        features.fit_classifier(digits.images[:100], digits.labels[:100], 10, steps=3, seed=s) for s in (1, 1, 2)
    )
    assert torch.equal(first(images[:4]), again(images[:4]))
    assert not torch.equal(first(images[:4]), other(images[:4]))


@pytest.mark.parametrize("size", [8, 13, 32])
def test_any_size_from_8_pixels(size):
    net = features.Classifier(size, 3, 4)
    assert net(torch.zeros(2, 3, size, size)).shape == (2, 4)


def test_refusals():
    with pytest.raises(Refused, match="give 8 or more"):
        features.Classifier(7, 1, 10)
    with pytest.raises(Refused, match="labels 0..1"):
        features.fit_classifier(torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 2, 0]), 2)
