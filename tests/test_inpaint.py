"""Zero-shot inpainting and reconstruction against a Gaussian, where the conditional distribution is known."""

import pytest
import torch

from memlib import inpaint, noise
from memlib.analytic import Empirical, GaussianMixture
from memlib.errors import Refused

GRID = noise.karras(60, 0.01, 40.0)


def gaussian():
    """Two correlated pixels as a 1 x 1 x 2 image."""
    covariance = torch.tensor([[[1.0, 0.9], [0.9, 1.0]]], dtype=torch.float64)
    mixture = GaussianMixture(torch.zeros(1, 2, dtype=torch.float64), covariances=covariance)
    return lambda x, sigma: mixture(x.flatten(1), sigma).reshape(x.shape)


def test_known_pixels_are_exact_and_the_hole_is_not_read():
    x0 = torch.randn(6, 1, 1, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    hidden = torch.tensor([[[False, True]]])
    spoilt = torch.where(hidden, torch.full_like(x0, float("nan")), x0)
    filled = inpaint.inpaint(gaussian(), x0, hidden, GRID, noise=noise.seeded(range(6)))
    again = inpaint.inpaint(gaussian(), spoilt, hidden, GRID, noise=noise.seeded(range(6)))
    assert torch.equal(filled[..., 0], x0[..., 0])
    assert torch.equal(filled, again)


def test_it_starts_at_the_standard_deviation_of_the_prior_known_pixels_too():
    seen = []

    def watch(x, sigma):
        seen.append((x.clone(), float(sigma)))
        return 0 * x

    x0 = 5 * torch.ones(4000, 1, 1, 2, dtype=torch.float64)
    hidden = torch.tensor([[[False, True]]])
    inpaint.inpaint(watch, x0, hidden, torch.tensor([30.0, 1.0, 0.0]), noise=noise.seeded(range(4000)))
    (first, sigma), (second, _) = seen
    assert sigma == 30.0
    assert abs(first[..., 0].std() - 30) < 1.5 and abs(first[..., 1].std() - 30) < 1.5
    assert abs(first[..., 0].mean() - 5) < 2 and abs(first[..., 1].mean()) < 2
    assert abs(second[..., 0].std() - 1) < 0.05  # the known part follows the level down


def test_the_final_denoising_reaches_the_hole():
    points = torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    filled = inpaint.inpaint(
        Empirical(points), points[[2, 2, 4]], inpaint.upper_half(4), GRID, noise=noise.seeded(range(3))
    )
    torch.testing.assert_close(filled, points[[2, 2, 4]], rtol=0, atol=1e-9)  # no noise is left in it


@pytest.mark.parametrize(("repeats", "gap"), [(1, 0.6), (8, 0.1)])
def test_a_gaussian_is_filled_by_its_conditional(repeats, gap):
    """x2 | x1 ~ N(0.9 x1, 0.19): replacement alone is known to lean towards the marginal, repeats mend it."""
    x0 = torch.full((3000, 1, 1, 2), 1.5, dtype=torch.float64)
    hidden = torch.tensor([[[False, True]]])
    filled = inpaint.inpaint(gaussian(), x0, hidden, noise.karras(40, 0.01, 40.0), repeats, noise.seeded(range(3000)))
    hole = filled[..., 1].flatten()
    assert abs(hole.mean() - 0.9 * 1.5) < gap
    if repeats > 1:
        assert abs(hole.std() - 0.19**0.5) < 0.08


def test_several_fillings_of_one_image_differ():
    x0 = torch.zeros(4, 1, 1, 2, dtype=torch.float64)
    hidden = torch.tensor([[[False, True]]])
    filled = inpaint.inpaint(gaussian(), x0, hidden, GRID, noise=noise.seeded(range(4)))
    assert len(filled[..., 1].unique()) == 4


def test_reconstruction_returns_what_little_noise_leaves():
    x0 = torch.randn(2000, 1, 1, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    seen = []

    def shrink(x, sigma):  # the exact denoiser of N(0, 9 I)
        seen.append(float(sigma))
        return x * 9 / (9 + sigma**2)

    sigma = float(noise.vp_sigma(torch.tensor(0.02)))
    assert abs(sigma - 0.0775) < 1e-3
    back = inpaint.reconstruct(shrink, x0, sigma, noise.karras(200, 0.001, 10.0), noise.seeded(range(2000)))
    assert seen[0] == pytest.approx(sigma) and max(seen) == seen[0]
    assert abs((back - x0).std() / sigma - 1) < 0.05  # the flow keeps the noise's quantile: it lands sigma away
    far = inpaint.reconstruct(lambda x, s: 0 * x, x0, 0.5, noise.karras(20))
    assert far.abs().max() == 0  # and ends at sigma = 0, where D alone speaks


def test_masks():
    upper = inpaint.upper_half(8)
    assert upper[0, :4].all() and not upper[0, 4:].any()
    box = inpaint.central_box(8, 0.5)
    assert int(box.sum()) == 16 and box[0, 2:6, 2:6].all()
    some = inpaint.scattered(8, 0.25, 3, torch.Generator().manual_seed(0))
    assert some.shape == (3, 1, 8, 8)
    assert (~some).flatten(1).sum(1).tolist() == [16, 16, 16]
    assert not torch.equal(some[0], some[1])


def test_refusals():
    x0 = torch.zeros(2, 1, 4, 4)
    with pytest.raises(Refused, match="a mask is bool"):
        inpaint.inpaint(lambda x, s: x, x0, torch.ones(1, 4, 4), GRID)
    with pytest.raises(Refused, match="does not broadcast"):
        inpaint.inpaint(lambda x, s: x, x0, torch.ones(1, 5, 4, dtype=torch.bool), GRID)
    with pytest.raises(Refused, match="ends in 0"):
        inpaint.inpaint(lambda x, s: x, x0, inpaint.upper_half(4), GRID[:-1])
    with pytest.raises(Refused, match="at least once"):
        inpaint.inpaint(lambda x, s: x, x0, inpaint.upper_half(4), GRID, 0)
    with pytest.raises(Refused, match="positive level"):
        inpaint.reconstruct(lambda x, s: x, x0, 0.0, GRID)
    with pytest.raises(Refused, match="hides nothing"):
        inpaint.central_box(8, 1.0)
    with pytest.raises(Refused, match="between 0 and 1"):
        inpaint.scattered(8, 1.0, 2, torch.Generator())
