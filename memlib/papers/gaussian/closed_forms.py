"""Formulas of the papers that need no network: the memorization measure, an unlearning optimum."""

from collections.abc import Callable

import torch
from torch import Tensor

from memlib.analytic import GaussianMixture
from memlib.denoiser import Denoiser, eps


def kl_to_points(mean: Tensor, covariance: Tensor, points: Tensor, variance: float | Tensor) -> Tensor:
    """Sum over the points of KL(N(mean, covariance) || N(point, variance I)), a scalar in nats. SIDE eq. 22.

    Arguments:
        mean: of the model, (d,).
        covariance: of the model, (d, d).
        points: the training points, (N, d).
        variance: of the narrow Gaussian at each point, epsilon in the paper; a float or a scalar tensor.
    """
    variance, d = torch.as_tensor(variance, dtype=mean.dtype), len(mean)
    spread = (mean - points).square().sum(1) + covariance.trace()
    return 0.5 * (spread / variance - covariance.logdet() + d * variance.log() - d).sum()


def obtuse_optimum(
    retain: GaussianMixture, forget: GaussianMixture, alpha: float, weight: Callable[[Tensor], Tensor]
) -> Denoiser:
    """The denoiser that minimises the obtuse unlearning loss exactly, (B, *S) -> (B, *S).

    Its predicted noise is eps_g - (1 - alpha) / (2 alpha) weight(sigma) p_f / p_g eps_f: that of the retained data,
    pushed away from the forgotten data wherever these are the likelier.

    Arguments:
        retain, forget: the densities p_g and p_f.
        alpha: fraction of the retained data in the loss, in (0, 1]; 1 gives `retain` itself.
        weight: w(sigma) of the unlearning term.
    """

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        odds = (forget.log_prob(x, sigma) - retain.log_prob(x, sigma)).exp()[:, None]
        push = (1 - alpha) / (2 * alpha) * weight(sigma) * odds * eps(forget, x, sigma)
        return x - sigma * (eps(retain, x, sigma) - push)

    return denoise
