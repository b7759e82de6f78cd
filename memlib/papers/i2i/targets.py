"""The noise that a forget image is sent to: N(0, Sigma) of eq. 10, with the Sigma of the paper, and alternatives.

Each function takes images (M, C, H, W), those of the forget set where they may be used, and returns a target:
(n, generator) -> (n, C, H, W), in their dtype and on their device, drawn on the generator's. In the paper an image is
standardised (its mean subtracted, divided by its standard deviation) before a network sees it, and n is drawn in that
space with Sigma = I (appendix C.4): give these functions images as the network sees them. In pixels of [-1, 1], N(0, I)
leaves the range of images three times in ten.

`gaussian`, `covariance` and `low_rank` turn the same draw of N(0, I) into their noise, so arms whose generators have
the same seed differ in nothing else.
"""

import math
from collections.abc import Callable

import torch
from scipy.sparse.linalg import svds
from torch import Tensor

from memlib.errors import Refused
from memlib.noise import noise_from

Target = Callable[[int, torch.Generator], Tensor]

_LARGEST = 4096  # coordinates beyond which D x D numbers are too many: 128 MiB in float64 there
_RIDGE = 1e-6  # fraction of the mean variance added to each: pixels that never vary make Sigma singular


def gaussian(images: Tensor, std: float = 1.0) -> Target:
    """N(0, std^2 I), whatever the images (M, C, H, W) are: Sigma = I, the paper's own choice. Appendix C.4."""
    return _noise(images, lambda z: std * z)


def uniform(images: Tensor, half_width: float = 1.0) -> Target:
    """U[-half_width, half_width] in each coordinate of images (M, C, H, W); 1, as in the paper's ablation (E.1).

    Its variance is half_width^2 / 3: the paper's has a third of its Gaussian's, and the two differ in size as well as
    in shape. half_width = sqrt(3) has variance 1, which leaves the shape.
    """

    def target(n: int, generator: torch.Generator) -> Tensor:
        u = torch.rand(n, *images.shape[1:], generator=generator, dtype=images.dtype, device=generator.device)
        return half_width * (2 * u.to(images.device) - 1)

    return target


def covariance(images: Tensor) -> Target:
    """N(mean, Sigma) with the mean and the exact sample covariance of images (M, C, H, W): the Sigma of lemma 1, around
    the mean of the images, which is 0 in the lemma.

    By Cholesky, in float64; a ridge of 1e-6 of the mean variance makes it exist where pixels never vary or M <= D.

    Raises:
        Refused: for fewer than two images and for more than 4,096 coordinates: use `low_rank` there.
    """
    rows = _rows(images)
    mean, sigma = rows.mean(0), _sigma(rows, "low_rank")
    ridge = _RIDGE * float(sigma.diagonal().mean())
    root = torch.linalg.cholesky(sigma + ridge * torch.eye(len(sigma), dtype=sigma.dtype, device=sigma.device))
    mean, root = mean.to(images), root.to(images)
    return _noise(images, lambda z: mean + z @ root.T)


def low_rank(images: Tensor, k: int) -> Target:
    """N(mean, U diag(l) U^T + s^2 (I - U U^T)): the k largest principal variances l of images (M, C, H, W), then even.

    s^2 is the mean of the other D - k variances, so the total is that of the images: the maximum-likelihood model of
    rank k (Tipping and Bishop 1999, eq. 7-8). The paper names it as future work (C.4). Nothing of D x D is ever formed:
    Lanczos on the (M, D) images, and (D, k) are kept. Raises Refused unless 1 <= k < min(M, D).
    """
    rows = _rows(images)
    samples, size = rows.shape
    if not 1 <= k < min(samples, size):
        raise Refused(
            f"{k} principal directions do not exist for {samples} images of {size} coordinates: give 1 to "
            f"{min(samples, size) - 1}"
        )
    mean = rows.mean(0)
    centred = (rows - mean).cpu().numpy()
    start = torch.randn(min(samples, size), generator=torch.Generator().manual_seed(0), dtype=torch.float64).numpy()
    _, singular, components = svds(centred, k, v0=start, solver="arpack")
    assert components is not None  # svds computes the vectors of both sides unless told otherwise
    variances = torch.as_tensor(singular.copy()).square() / (samples - 1)  # (k,), ascending
    total = float((rows - mean).square().sum()) / (samples - 1)
    rest = math.sqrt(max(total - float(variances.sum()), 0.0) / (size - k))
    stretch = (variances.sqrt() - rest).to(images)
    directions, mean = torch.as_tensor(components.copy()).to(images), mean.to(images)  # (k, D), (D,)
    return _noise(images, lambda z: mean + rest * z + (z @ directions.T * stretch) @ directions)


def off_diagonal(images: Tensor) -> float:
    """Fraction of the squared entries of the covariance of images (M, C, H, W) off its diagonal, 0 to 1.

    It is 0 where Sigma is diagonal, as Sigma = I assumes (C.4). It is computed from the M x M products of images, so
    any D will do. M images with independent coordinates show more than 0 by chance: about D / (M + D) where all
    variances are equal, less where a few make up most of the whole; compare with `off_diagonal_by_chance`.

    Raises:
        Refused: for fewer than two images, and for images that do not vary.
    """
    rows = _rows(images)
    centred = rows - rows.mean(0)
    all_squares = (centred @ centred.T if len(rows) < rows.shape[1] else centred.T @ centred).square().sum()
    if all_squares == 0:
        raise Refused(f"the {len(images)} images are all the same, so their covariance is 0: give images that differ")
    return float(1 - centred.square().sum(0).square().sum() / all_squares)


def off_diagonal_by_chance(images: Tensor, generator: torch.Generator) -> float:
    """`off_diagonal` of images (M, C, H, W) once each coordinate is permuted over the images by itself, 0 to 1.

    That leaves every coordinate's variance v_i and breaks what ties it to the others, whose entries of the covariance
    then have mean square v_i v_j / (M - 1). The fraction is near ((sum v)^2 - sum v^2) / ((sum v)^2 + (M - 2) sum v^2),
    which is (D - 1) / (M + D - 2) where all v are equal. Raises Refused as `off_diagonal`.
    """
    rows = _rows(images)
    keys = torch.rand(rows.shape, generator=generator, dtype=torch.float64, device=generator.device)
    return off_diagonal(rows.gather(0, keys.argsort(0).to(rows.device)))


def nearly_zero(images: Tensor, below: float = 0.1) -> float:
    """Fraction of the off-diagonal entries of the covariance of images (M, C, H, W) that are below `below` in size.

    The paper takes Sigma = I from pictures of the absolute covariances of MNIST and of grey CIFAR: nearly all entries
    off the diagonal are about zero (C.4, fig. C.5), with no number for "about". This is such a number, in squared units
    of the images: give them standardised, with mean variance 1. Many small entries can add up to much, which is what
    `off_diagonal` measures.

    Raises:
        Refused: for fewer than two images or coordinates, and for more than 4,096 coordinates.
    """
    sigma = _sigma(_rows(images), "off_diagonal")
    if len(sigma) < 2:
        raise Refused("a covariance of one coordinate has nothing off its diagonal: give images of at least two")
    small = sigma.abs() < below
    return float(small.sum() - small.diagonal().sum()) / (len(sigma) * (len(sigma) - 1))


def _noise(images: Tensor, shape: Callable[[Tensor], Tensor]) -> Target:
    """A target that draws N(0, I) as rows (n, D) and has `shape` turn them into noise (n, D)."""
    like = images[:1].new_empty(1, images[0].numel())
    form = images.shape[1:]

    def target(n: int, generator: torch.Generator) -> Tensor:
        return shape(noise_from(generator)(like.expand(n, -1))).unflatten(1, form)

    return target


def _rows(images: Tensor) -> Tensor:
    """The images as float64 rows (M, D), or Refused."""
    if len(images) < 2:
        raise Refused(f"a covariance needs at least 2 images, not {len(images)}")
    return images.flatten(1).double()


def _sigma(rows: Tensor, instead: str) -> Tensor:
    """The sample covariance (D, D) of rows (M, D), or Refused, with what to use `instead`, where that is too large."""
    size = rows.shape[1]
    if size > _LARGEST:
        raise Refused(f"a covariance of {size} coordinates has {size}^2 entries: use {instead}, or at most {_LARGEST}")
    return rows.T.cov().reshape(size, size)  # torch has a scalar for one coordinate
