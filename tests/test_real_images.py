"""The road from a folder of photographs to a score, on real images if MEMLIB_DATA names a folder that holds some."""

import os
from pathlib import Path

import pytest
import torch

from memlib import data, features, metrics

ROOT = os.environ.get("MEMLIB_DATA")
FOLDER = Path(ROOT, "cifar10", "test") if ROOT else Path()

pytestmark = pytest.mark.skipif(
    not ROOT or not FOLDER.is_dir(),
    reason="MEMLIB_DATA is unset or has no cifar10/test/CLASS/*.jpg: set it to a folder of real images to run this",
)


@pytest.fixture(scope="module")
def images():
    return data.load(f"folder:{FOLDER}")


def test_classes_sizes_and_range(images):
    assert sorted(images.names) == sorted(path.name for path in FOLDER.iterdir() if path.is_dir())
    assert images.images.shape[1:] == (3, 32, 32) and images.labels.unique().tolist() == list(range(len(images.names)))
    assert images.images.min() == -1 and images.images.max() == 1 and 0.2 < images.images.std() < 0.8
    assert data.load(f"folder:{FOLDER}").fingerprint == images.fingerprint


@pytest.mark.parametrize("embedder", [features.centred, lambda reference: features.half_whitened(reference, 200)])
def test_planted_copies_are_found_and_held_out_images_are_not(images, embedder):
    parts = data.split(images, {"train": 1000, "held_out": 600, "fresh": 400, "reference": 500})
    embed = embedder(parts["reference"].images)
    train = embed(parts["train"].images)
    level = metrics.threshold(metrics.nearest(embed(parts["held_out"].images), train)[0][:, 0], 0.01)
    g = torch.Generator().manual_seed(0)
    chosen = torch.randperm(1000, generator=g)[:300]
    originals = parts["train"].images[chosen]
    copies = originals + 0.1 * torch.randn(originals.shape, generator=g)    # noise of 13 grey levels
    similarity, index = metrics.nearest(embed(copies), train)
    found = metrics.ams(similarity, level)
    assert found.rate > 0.6 and (index[:, 0] == chosen).double().mean() > 0.95
    assert metrics.ums(index[metrics.in_band(similarity, level)], len(copies)).k <= found.k
    # The threshold was set on other images: on fresh ones it must hold its rate up to chance.
    false = metrics.ams(metrics.nearest(embed(parts["fresh"].images), train)[0], level)
    assert false.interval(0.999)[0] <= 0.02
    assert (metrics.l2_ratio(features.pixels(copies), features.pixels(parts["train"].images)) < 1).all()
    exact = metrics.l2_ratio(features.pixels(originals), features.pixels(parts["train"].images))
    assert (exact == 0).all()


def test_resampling_to_another_size(images):
    small = data.load(f"folder:{FOLDER}", size=16)
    assert small.images.shape == (len(images), 3, 16, 16) and torch.equal(small.labels, images.labels)
    means = images.images.mean((1, 2, 3)), small.images.mean((1, 2, 3))
    torch.testing.assert_close(*means, atol=0.02, rtol=0)    # resampling keeps the light
