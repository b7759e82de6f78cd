"""Alterations against SciPy, the loss against loops, and a descriptor that must find what it was trained to find."""

import math

import numpy
import pytest
import scipy.ndimage
import torch

from memlib import data, features, metrics
from memlib.cache import store
from memlib.errors import Refused
from memlib.features import alterations


def key(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=key(seed), dtype=dtype)


@pytest.fixture(scope="module")
def faces():
    return data.load("faces:n=700,identities=350", 16).images


@pytest.mark.parametrize("shape", [(9, 9), (8, 13)])
def test_moved_equals_scipys_affine_transform(shape):
    images = noise(4, 2, *shape)
    scale, turn = torch.tensor([1.0, 0.8, 1.2, 0.9]), torch.tensor([0.0, 0.0, 0.3, -1.0])
    right, down = torch.tensor([0.0, 1.5, -0.7, 0.4]), torch.tensor([2.0, 0.0, 0.6, -1.3])
    got = alterations.moved(images, scale, right, down, turn)
    middle = (numpy.array(shape) - 1) / 2
    for i, image in enumerate(images):
        c, s = (float(scale[i] * f(turn[i])) for f in (torch.cos, torch.sin))
        matrix = numpy.array([[c, s], [-s, c]])  # rows and columns, where x points right and y down
        offset = middle + numpy.array([float(down[i]), float(right[i])]) - matrix @ middle
        for plane, one in zip(image, got[i], strict=True):
            want = scipy.ndimage.affine_transform(plane.numpy(), matrix, offset, order=1, mode="nearest")
            numpy.testing.assert_allclose(one.numpy(), want, atol=1e-5)


def test_blurred_equals_scipys_gaussian_each_of_its_width():
    images, std = noise(3, 2, 9, 12), torch.tensor([0.0, 0.6, 1.1])
    got = alterations.blurred(images, std)
    torch.testing.assert_close(got[0], images[0])
    for i in (1, 2):
        for plane, one in zip(images[i], got[i], strict=True):
            want = scipy.ndimage.gaussian_filter(plane.numpy(), float(std[i]), mode="nearest", radius=3)
            numpy.testing.assert_allclose(one.numpy(), want, atol=1e-6)


def test_covered_puts_one_rectangle_of_one_colour_over_each():
    images = noise(40, 3, 16, 12)
    got = alterations.covered(images, key())
    changed = (got != images).any(1)
    for mask, image in zip(changed, got, strict=True):
        rows, columns = mask.any(1), mask.any(0)
        assert torch.equal(mask, rows[:, None] & columns)
        assert 3 <= rows.sum() <= 9 and 2 <= columns.sum() <= 7
        assert (image[:, mask].std(1) < 1e-6).all()
    assert len({tuple(mask.any(1).tolist()) for mask in changed}) > 5


def test_augment_is_keyed_stays_in_range_and_mirrors_only_when_asked():
    images = torch.ones(200, 1, 8, 8)
    images[..., 4:] = -1
    one, two = (features.augment(images, 0.5, key()) for _ in range(2))
    assert torch.equal(one, two) and one.shape == images.shape and one.abs().max() <= 1
    assert not torch.equal(one, features.augment(images, 0.5, key(1)))

    def leftish(views):
        return float((views[..., :4].mean((1, 2, 3)) > views[..., 4:].mean((1, 2, 3))).double().mean())

    assert leftish(one) > 0.97 and 0.35 < leftish(features.augment(images, 0.5, key(), flips=True)) < 0.65


def test_planted_copies_are_of_their_sources(faces):
    kinds = features.planted(faces[:100], key())
    assert set(features.UNSEEN) < set(kinds) and len(kinds) == 12
    near = features.half_whitened(faces[100:], 40)
    for kind, copies in kinds.items():
        assert copies.shape == (100, 3, 16, 16) and copies.abs().max() <= 1 and not torch.equal(copies, faces[:100])
        _, index = metrics.nearest(near(copies), near(faces[:100]))
        assert (index[:, 0] == torch.arange(100)).double().mean() > 0.6, kind


@pytest.mark.parametrize("entropy", [0.0, 30.0])
def test_copy_loss_by_loops(entropy):
    rows = noise(10, 4)
    unit = [row / row.norm() for row in rows]
    contrast = spread = 0.0
    for i in range(10):
        j = (i + 5) % 10
        others = [k for k in range(10) if k not in (i, j)]
        same = math.exp(float(unit[i] @ unit[j]) / 0.05)
        contrast -= math.log(same / (same + sum(math.exp(float(unit[i] @ unit[k]) / 0.05) for k in others))) / 10
        spread -= math.log(min(float((unit[i] - unit[k]).norm()) for k in others)) / 10
    assert features.copy_loss(3 * rows, entropy).item() == pytest.approx(contrast + entropy * spread, rel=1e-9)


def test_copy_loss_has_a_gradient_where_two_images_coincide():
    rows = torch.ones(6, 3, requires_grad=True)
    loss = features.copy_loss(rows)
    loss.backward()
    assert loss.isfinite() and rows.grad.isfinite().all()


def test_recall_by_hand():
    members = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).view(2, 1, 1, 3)
    held_out = torch.tensor([[0.6, 0.0, 0.8]] * 3 + [[0.0, 0.0, 1.0]] * 97).view(100, 1, 1, 3)
    kinds = {
        "same": members,
        "swapped": members.flip(0),  # near a member, and the wrong one
        "half": torch.tensor([[0.8, 0.0, 0.6], [0.0, 0.5, 0.8]]).view(2, 1, 1, 3),  # cosines .8 and .53
    }
    counts = features.recall(features.pixels, members, held_out, kinds, 0.02)  # a threshold just above .6
    assert {kind: str(count) for kind, count in counts.items()} == {"same": "2/2", "swapped": "0/2", "half": "1/2"}
    assert features.recall(features.pixels, members, held_out, kinds, 0.03)["half"].k == 2  # above 0, now
    with pytest.raises(Refused, match="1 copies of kind 'one' for 2 members"):
        features.recall(features.pixels, members, held_out, {"one": members[:1]}, 0.02)


def test_a_short_training_finds_moved_copies_that_pixels_miss(faces):
    members, held_out, reference = faces[:100], faces[100:300], faces[300:]
    kinds = features.planted(members, key())
    trained = features.copies(reference, features.learn_copies(reference, steps=80))
    found = features.recall(trained, members, held_out, kinds, 0.05)
    plain = features.recall(features.half_whitened(reference, 40), members, held_out, kinds, 0.05)
    for kind in ("shifted", "cropped", "blurred"):
        assert found[kind].k > plain[kind].k + 10, kind
    assert sum(count.k for count in found.values()) > sum(count.k for count in plain.values())


def test_training_is_keyed_by_its_seed_and_leaves_the_global_generator_alone(faces, tmp_path, monkeypatch):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two, other = (features.learn_copies(faces[:20], seed, steps=2) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])
    assert one["body.1.running_mean"].abs().sum() > 0  # batch statistics were in use
    monkeypatch.setenv("MEMLIB_CACHE", str(tmp_path))
    kept = store.cached("copies", features.learn_copies, faces[:20], 0, 2)
    want, got = features.copies(faces[:20], one)(faces[:30]), features.copies(faces[:20], kept)(faces[:30])
    assert torch.equal(want, got)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 20, 28), (1, 7, 9), (3, 32, 32)])
def test_any_small_image_will_do_and_features_are_of_length_one(shape):
    reference = noise(16, *shape).clamp(-1, 1)
    embed = features.copies(reference, features.learn_copies(reference, steps=1))
    rows = embed(reference.requires_grad_())
    assert rows.dtype == torch.float64 and not rows.requires_grad and rows.shape[0] == 16
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(16, dtype=torch.float64), rtol=1e-6, atol=0)
    # One image alone is embedded as among others: nothing leaks through the batch.
    torch.testing.assert_close(embed(reference[:1]), rows[:1], rtol=1e-5, atol=1e-5)
    assert embed(reference[:0]).shape == (0, rows.shape[1])


def test_refusals(faces):
    with pytest.raises(Refused, match="16 images"):
        features.learn_copies(faces[:15])
    with pytest.raises(Refused, match=r"\(3, 16, 16\), not \(3, 8, 8\)"):
        features.copies(faces[:16], features.learn_copies(faces[:16], steps=1))(torch.zeros(1, 3, 8, 8))
