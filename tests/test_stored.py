"""What goes through a set in parts gives on disk what it gives in memory, and reads few rows at a time."""

from functools import partial

import numpy
import pytest
import torch

from memlib import features, membership, metrics, stored
from memlib.metrics import Moments, _cliques, _graph, _proposal

SIDE, COUNT = 4, 310
BYTES = 4 * 3 * SIDE * SIDE * 20  # twenty rows


@pytest.fixture(autouse=True)
def parts(monkeypatch):
    """Twenty rows at a time, and few numbers while distances are computed."""
    monkeypatch.setattr(stored, "BYTES", BYTES)
    monkeypatch.setattr(_cliques, "_CELLS", BYTES // 4)
    monkeypatch.setattr(_proposal, "_CPU", _proposal._CPU._replace(cells=BYTES // 4))


@pytest.fixture
def largest(monkeypatch):
    """The most bytes that were read at once, as float32."""
    found, read = [0], stored.Stored._read

    def noted(self, places):
        found[0] = max(found[0], 4 * len(places) * int(numpy.prod(self._row)))
        return read(self, places)

    monkeypatch.setattr(stored.Stored, "_read", noted)
    return found


def on_disk(count, seed=0):
    """Images in groups that resemble one another, two files of them, some equal."""
    draws, kinds = numpy.random.default_rng(seed), numpy.random.default_rng(0).integers(0, 256, (12, 3, SIDE, SIDE))
    levels = kinds[draws.integers(0, 12, count) ** 2 // 12] + draws.integers(-25, 26, (count, 3, SIDE, SIDE))
    levels = levels.clip(0, 255).astype(numpy.uint8)
    levels[-5:] = levels[:5]
    return stored.Stored([levels[: count // 3], levels[count // 3 :]])


X, Y = on_disk(COUNT, 1), on_disk(COUNT, 2)
LABELS = torch.arange(COUNT) % 3


def plain(images):
    """The same in memory."""
    return torch.cat(list(images.split(10)))


def same(measure, *sets, exact=True, tolerance=1e-9):
    """The measure of sets in memory, and that of one or of all of them on disk."""
    pairs = [(one.flatten(1), plain(one).flatten(1)) for one in sets]
    want = measure(*(held for _, held in pairs))
    mixed = [[one[place == which] for place, one in enumerate(pairs)] for which in range(len(pairs))]
    for given in [[there for there, _ in pairs], *mixed]:
        found = measure(*given)
        if exact:
            assert equal(found, want)
        else:
            torch.testing.assert_close(found, want, rtol=tolerance, atol=tolerance)
    return want


def equal(one, other):
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.parametrize("band", [(0.9,), (0.3, 0.94), (0.95, 1.0), (-1.0, -0.1)])
def test_matches(band, largest):
    i, _ = same(lambda a, b: metrics.matches(a, b, *band), X, Y.rows(slice(100)))
    assert len(i) and 0 < largest[0] <= BYTES
    near, _ = same(lambda a, b: metrics.matches(a, b, *band), X, X)
    assert len(near) > len(i) or band[0] < 0


@pytest.mark.parametrize(("listed", "whole"), [(256, 2048), (256, 0), (20, 0)])
def test_cliques_and_their_medoids(listed, whole, monkeypatch, largest):
    monkeypatch.setattr(_graph, "_LISTED", listed)  # neighbours of a row
    monkeypatch.setattr(_graph, "_WHOLE", whole)  # rows up to which all edges are held
    groups = same(lambda a: metrics.cliques(a, 0.93, 3), X)
    assert len(groups) > 5 and len(groups[0]) > 20 and 0 < largest[0] <= BYTES
    assert len(same(lambda a: metrics.medoids(a, groups), X)) == len(groups)
    assert largest[0] <= BYTES


def test_adaptive_l2(largest):
    for around in ("query", "match"):
        same(partial(metrics.adaptive_l2, n=10, around=around), Y, X, exact=False, tolerance=1e-6)
    assert 0 < largest[0] <= BYTES


@pytest.mark.parametrize(("n", "m"), [(COUNT, COUNT), (COUNT, 40), (40, COUNT), (40, 30)])  # of 48 features
def test_frechet_distance_and_moments(n, m, largest):
    sets = X.rows(slice(n)), Y.rows(slice(m))
    assert same(metrics.frechet_distance, *sets, exact=False) > 0.1
    moments = same(lambda a: (found := Moments(48).update(a)).mean.tolist() + found.scatter.tolist()[3], X, exact=False)
    assert moments[0] and 0 < largest[0] <= BYTES


def test_kernels(largest):
    sets = X.rows(slice(100)).map(lambda part: part * 0.5), Y.rows(slice(70)), Y.rows(slice(100, 190))
    width = same(lambda a, b: metrics.median_distance(a, b, 500, torch.Generator().manual_seed(0)), *sets[:2])
    for unbiased in (True, False):
        same(partial(metrics.mmd2, bandwidths=[width, 2 * width], unbiased=unbiased), *sets[:2], exact=False)
        same(partial(metrics.kid, unbiased=unbiased), *sets[:2], exact=False)
    difference = partial(metrics.mmd2_difference, bandwidths=width)
    same(lambda *given: (found := difference(*given))[1] + (found[0],), *sets, exact=False)

    def p_value(a, b):
        return metrics.mmd2_p_value(a, b, width, 40, torch.Generator().manual_seed(0))

    assert same(p_value, *sets[:2]) < 0.1 and same(p_value, sets[1], sets[2]) > 0.1
    assert 0 < largest[0] <= BYTES


def test_what_labels_tell(largest):
    kinds = plain(X).flatten(1).argmax(1) % 7
    assert 0 < same(lambda a: metrics.label_ratio(a, kinds), X, exact=False, tolerance=1e-6) < 0.99
    assert 0 < largest[0] <= BYTES


def test_the_blind_classifier():
    found, _ = same(membership.blind, X.rows(slice(60)), Y.rows(slice(50)).map(lambda part: part * 0.8))
    assert found > 0.6


@pytest.mark.parametrize("count", [COUNT, 30])  # of 48 pixels
def test_principal_components(count, largest):
    there = X.rows(slice(count))
    held = plain(there)
    for k in (None, 5):
        one, other = (features.half_whitened(images, k)(Y) for images in (there, held))
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        assert one.shape[1] == (k or min(48, count - 1))
    (encode, decode), (plainly, _) = (features.latents(images, 8) for images in (there, held))
    torch.testing.assert_close(encode(Y), plainly(plain(Y)), rtol=1e-5, atol=1e-5)
    assert decode(encode(Y[:3])).shape == (3, 3, SIDE, SIDE)
    assert 0 < largest[0] <= BYTES


def test_trained_features():
    reference = X.rows(slice(60))
    state, plainly = (features.learn_copies(images, steps=2) for images in (reference, reference[:]))
    assert state.keys() == plainly.keys()
    for name, one in state.items():
        torch.testing.assert_close(one, plainly[name], rtol=1e-3, atol=1e-3, msg=name)
    one, other = features.copies(reference, plainly), features.copies(reference[:], plainly)
    assert torch.equal(one(Y), other(Y[:]))
    kinds = {"darker": (X[:] * 0.9)}
    assert equal(features.recall(one, X, Y, kinds, 0.1), features.recall(one, X[:], Y[:], kinds, 0.1))
    net = features.classifier(X, LABELS, steps=3, width=8)
    assert features.held_out(net, Y, LABELS) == features.held_out(net, Y[:], LABELS)
