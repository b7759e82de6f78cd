"""Embedders against scikit-learn's PCA and against what half-whitening means."""

import pytest
import torch
from sklearn.decomposition import PCA

from memlib import data, features
from memlib.errors import Refused


@pytest.fixture(scope="module")
def digits():
    return data.load("digits").images


def test_pixels_and_centred(digits):
    assert torch.equal(features.pixels(digits), digits.reshape(1797, 64))
    embed = features.centred(digits[:500])
    torch.testing.assert_close(embed(digits), digits.reshape(-1, 64) - digits[:500].double().mean(0).flatten().float())


@pytest.mark.parametrize("k", [1, 20, 50])
def test_half_whitened_equals_scikit_learns_pca_rescaled(digits, k):
    reference, images = digits[:900].double(), digits[900:].double()
    pca = PCA(k, svd_solver="full").fit(reference.flatten(1))
    want = torch.from_numpy(pca.transform(images.flatten(1)) / pca.explained_variance_**0.25)
    got = features.half_whitened(reference, k)(images)
    # A component has no sign of its own: theirs is fixed by other means.
    signs = (got * want).sum(0).sign()
    torch.testing.assert_close(got, want * signs, rtol=1e-6, atol=1e-8)


def test_components_point_to_their_largest_entry(digits):
    reference = digits[:900].double()
    embed = features.half_whitened(reference)
    basis = torch.eye(64, dtype=torch.float64).reshape(64, 1, 8, 8)
    weights = embed(basis) - embed(torch.zeros(1, 1, 8, 8, dtype=torch.float64))  # (64, k): the linear part
    largest = weights.gather(0, weights.abs().argmax(0, keepdim=True))
    assert (largest > 0).all()


def test_the_variance_of_each_feature_is_the_root_of_the_components(digits):
    # Half-way: l^-1/4 applied to a component of variance l leaves variance sqrt(l).
    reference = digits[:900].double()
    variance = features.half_whitened(reference)(reference).var(0)
    values = torch.linalg.eigvalsh(reference.flatten(1).T.cov()).flip(0)[: len(variance)]
    torch.testing.assert_close(variance, values.sqrt())


def test_constant_pixels_and_small_references_lose_only_what_they_lack(digits):
    assert features.half_whitened(digits[:900])(digits[:3]).shape[1] < 64  # digits have pixels that are always blank
    assert features.half_whitened(digits[:10])(digits[:3]).shape == (3, 9)
    assert features.half_whitened(digits[:10])(digits).isfinite().all()


def test_the_reference_is_fitted_in_float64_and_the_dtype_is_the_images(digits):
    single, double = features.half_whitened(digits[:900], 40), features.half_whitened(digits[:900].double(), 40)
    assert single(digits).dtype == torch.float32 and single(digits.double()).dtype == torch.float64
    torch.testing.assert_close(single(digits.double()), double(digits.double()), rtol=1e-12, atol=1e-12)


def test_refusals(digits):
    with pytest.raises(Refused, match="1 to 9"):
        features.half_whitened(digits[:10], 10)
    with pytest.raises(Refused, match="at least 2"):
        features.half_whitened(digits[:1])
    with pytest.raises(Refused, match="non-empty"):
        features.centred(digits[:0])
    for embed in (features.centred(digits), features.half_whitened(digits[:100])):
        with pytest.raises(Refused, match=r"\(1, 8, 8\), not \(3, 8, 8\)"):
            embed(torch.zeros(2, 3, 8, 8))
