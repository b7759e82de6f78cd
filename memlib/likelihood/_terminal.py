"""The density at the end of the flow, where data and much noise make nearly a Gaussian.

Its mean and spread are the denoiser's to say. With m the point where D(m) = m, and J the Jacobian of D there,

    log p(x) = log p(m) + integral of the score from m to x,
    log p(m) = log det (I - J) / 2 - d log(2 pi sigma^2) / 2.

The second is Laplace's approximation, exact where the data are Gaussian, of any mean and covariance. The first is by
Simpson's rule, which is exact for a score that is cubic along the way; a Gaussian's is linear. By how much that matters
says how far the data are from Gaussian, and so how far the second may be off.
"""

import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from memlib.errors import Refused
from memlib.likelihood._flow import Flow

_CENTRING = 100  # evaluations to find the centre of the data
_ANNOUNCED = 0.05, 1e-3  # nats, and nats per dimension: an end that is off by more than both is announced


def prior(sigma: float) -> Callable[[Tensor], Tensor]:
    """log N(x; 0, sigma^2 I), (B, *S) -> (B,): the `terminal` of a generative model that samples from this noise."""

    def log_normal(x: Tensor) -> Tensor:
        square = x.double().square().flatten(1)
        return -0.5 * (square / sigma**2 + math.log(2 * math.pi * sigma**2)).sum(1)

    return log_normal


@torch.no_grad()
def given(terminal: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The log-density of `terminal` at x (B, *S), (B,) in float64."""
    end = terminal(x)
    if end.shape != (len(x),):
        raise Refused(f"terminal must return one log-density per sample, {(len(x),)}, not {tuple(end.shape)}")
    return end.double()


def from_denoiser(flow: Flow, x: Tensor, sigma: float) -> Tensor:
    """log p at level sigma at x (B, *S), as (1, B), or (P, B) where probes estimate the trace."""
    centre, one = _centre(flow, x, sigma)
    size, away = x[0].numel(), (x - centre).flatten(1).double()
    trace, square = flow.moments(centre, sigma)  # of I - J
    kept = trace / size  # sigma^2 / (sigma^2 + variance): in (0, 1] for data
    if not one or not ((kept > 0) & (kept < 1.5)).all():
        raise Refused(
            f"the denoiser at sigma_max={sigma:.4g} is not that of data with one centre and a spread: raise sigma_max, "
            "or give terminal, such as likelihood.prior(sigma_max) for a model that samples from such noise"
        )
    # log det (I - J) to second order in e, the relative deviations of its eigenvalues from their mean.
    squares = (square / kept**2 - size).clamp_min(0)  # the sum of e^2
    log_det = size * kept.log() - squares / 2
    half, whole = ((y - flow.mean(y, sigma)).flatten(1).double() for y in ((x + centre) / 2, x))
    simpson = ((4 * half + whole) / 6 * away).sum(1) / sigma**2  # the score is 0 at the centre
    # 0 for Gaussian data. For others the first order of Laplace's error; three times it where that order fails.
    doubt = 3 * float((simpson - (whole * away).sum(1) / (2 * sigma**2)).abs().max())
    e = squares.max().sqrt().clamp_max(0.9999)  # what is left of the series is largest if all is in one direction
    doubt += float(-((-e).log1p() + e + e**2 / 2) / 2)
    if not doubt < max(_ANNOUNCED[0], _ANNOUNCED[1] * size):
        warnings.warn(
            f"sigma_max={sigma:.4g} is low for data of this spread or shape, and log-likelihoods may be off by "
            f"{doubt:.2g} nats: raise sigma_max, or give terminal",
            stacklevel=3,
        )
    return 0.5 * log_det - 0.5 * size * math.log(2 * math.pi * sigma**2) - simpson


def _centre(flow: Flow, x: Tensor, sigma: float) -> tuple[Tensor, bool]:
    """Where D(m) = m, found from each x (B, *S), and whether that is found, and is one cloud for all."""
    centre, moved = x, [math.inf]
    while moved[-1] > 1e-4 * sigma and len(moved) <= _CENTRING:
        before, centre = centre, flow.mean(centre, sigma)  # D contracts by variance / (variance + sigma^2)
        moved.append(float((centre - before).flatten(1).norm(dim=1).max()))
        if len(moved) > 5 and moved[-1] >= moved[-2]:  # rounding is all that is left
            break
    apart = float((centre - centre[:1]).flatten(1).norm(dim=1).max())
    return centre, moved[-1] <= 1e-2 * sigma and apart <= sigma
