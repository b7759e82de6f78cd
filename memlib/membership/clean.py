"""Statistics of a denoiser at the clean image itself, of one or two calls each, larger for members.

A denoiser that has seen x0 leaves it where it is, and pulls everything near it towards it. `sima` measures the first,
`local_dimension` and `curvature` the second, by how D changes when its input does.
"""

import torch
from torch import Tensor

from memlib.denoiser import Denoiser, eps, evaluated
from memlib.errors import Refused
from memlib.membership.generators import _check
from memlib.noise import Noise, as_level, expand_sigma
from memlib.shapes import Float, PerSample

_STEP = 0.05  # of a finite difference, in sigma: small against the scale of D, large against rounding


@torch.no_grad()
def sima(denoiser: Denoiser, x0: Float[Tensor, " b *s"], sigma: PerSample, *, norm: float = 4.0) -> Float[Tensor, " b"]:
    """Minus the p-norm of the noise that the model sees in the clean x0 (B, *S), (B,). One call. Rao et al. 2025.

    The true noise is 0. A memorizer sees |x0 - nearest training image| / sigma, which is 0 for members.

    Arguments:
        denoiser: D(x, sigma).
        x0: the images in question.
        sigma: the level that the model is told, above 0.
        norm: p, 4 in the paper.

    Raises:
        Refused: for a level that is not positive and finite, and a norm below 1.
    """
    _check(sigma, x0)
    if not norm >= 1:
        raise Refused(f"a p-norm has p >= 1, not {norm}")
    return -eps(evaluated(denoiser), x0, sigma).flatten(1).norm(norm, dim=1)


@torch.no_grad()
def local_dimension(
    denoiser: Denoiser, x0: Float[Tensor, " b *s"], sigma: PerSample, noise: Noise
) -> Float[Tensor, " b"]:
    """Minus the local dimension of the model around x0 (B, *S), (B,). Two calls. FLIPD, Kamkari et al. 2024, eq. 8.

    The dimension is d + sigma^2 (div s + |s|^2) = tr dD/dx + |x0 - D|^2 / sigma^2, with the score s at x0. It is 0 at a
    training point of a memorizer, and the dimension of the subspace for Gaussian data on one. The trace is estimated
    from one probe, by a finite difference.

    Arguments:
        denoiser: D(x, sigma).
        x0: the images in question.
        sigma: the noise level, above 0.
        noise: the probe, called once; the same for every model.

    Raises:
        Refused: for a level that is not positive and finite.
    """
    away, trace, _ = _differences(denoiser, x0, sigma, noise)
    return -(trace + away)


@torch.no_grad()
def curvature(denoiser: Denoiser, x0: Float[Tensor, " b *s"], sigma: PerSample, noise: Noise) -> Float[Tensor, " b"]:
    """How sharply log p bends at x0 (B, *S), as sigma^2 |ds/dx v| / |v| for one random direction v, (B,). Two calls.

    After the sharpness of Jeon et al. 2025. It is 1 where D does not move with its input, as at an isolated training
    point of a memorizer, and sigma^2 / (std^2 + sigma^2) for Gaussian data. Choose the level: far below the distance
    between training images, D of a memorizer moves nowhere, and all images look alike.

    Arguments:
        denoiser: D(x, sigma).
        x0: the images in question.
        sigma: the noise level, above 0.
        noise: the direction, called once; the same for every model.

    Raises:
        Refused: for a level that is not positive and finite.
    """
    return _differences(denoiser, x0, sigma, noise)[2]


def _differences(denoiser: Denoiser, x0: Tensor, sigma: PerSample, noise: Noise) -> tuple[Tensor, Tensor, Tensor]:
    """|x0 - D|^2 / sigma^2, tr dD/dx and |(dD/dx - 1) v| / |v| for one probe v of signs, (B,) each."""
    _check(sigma, x0)
    calm, level, width = evaluated(denoiser), as_level(sigma, x0), expand_sigma(sigma, x0)
    probe = noise(x0).sign()
    there, moved = calm(x0, level), calm(x0 + _STEP * width * probe, level)
    slope = (moved - there) / (_STEP * width)
    away = ((x0 - there) / width).flatten(1).square().sum(1)
    trace = (probe * slope).flatten(1).sum(1)
    return away, trace, (slope - probe).flatten(1).norm(dim=1) / probe.flatten(1).norm(dim=1)
