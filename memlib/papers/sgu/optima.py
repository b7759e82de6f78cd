"""The optima of the losses of SGU: what a network would learn if it could follow them exactly.

At every noise level and point the loss is quadratic in eps_hat(x), so its minimiser has a closed form. Below, p_g and
p_f are the noised densities of retained and forget data, and e_g and e_f the noise predicted under each.
"""

from typing import Protocol

import torch
from torch import Tensor

from memlib.denoiser import Denoiser, eps
from memlib.noise import expand_sigma
from memlib.papers.sgu._objective import Weight, ones


class Density(Protocol):
    """A denoiser with a density, such as `analytic.GaussianMixture`."""

    def __call__(self, x: Tensor, sigma: Tensor, /) -> Tensor:
        """Posterior mean of x0 given x (B, *S) at level sigma, (B, *S)."""
        ...

    def log_prob(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Log-density at level sigma of x (B, *S), (B,)."""
        ...


def obtuse_optimum(retain: Density, forget: Density, alpha: float, weight: Weight = ones) -> Denoiser:
    """The minimiser of eq. 11 with `losses.obtuse`: e_g - c p_f / p_g e_f, with c = weight (1 - alpha) / (2 alpha).

    As a score it is grad (p_g - c p_f) / p_g: it climbs the *difference* of the densities and leaves every place where
    c p_f exceeds p_g. Its length is 1 - c p_f / p_g times that of the difference's own score. The push grows where
    retained data are rare.

    Returns:
        A denoiser (B, *S) -> (B, *S).
    """

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        push = _odds(retain, forget, x, sigma).exp() * (_loss_ratio(alpha, weight, x, sigma) / 2)
        return x - expand_sigma(sigma, x) * (eps(retain, x, sigma) - expand_sigma(push, x) * eps(forget, x, sigma))

    return denoise


def bounded_optimum(
    retain: Density, forget: Density, alpha: float, reach: float = 1.0, weight: Weight = ones
) -> Denoiser:
    """The minimiser of eq. 11 with `losses.obtuse_bounded`: a weighted mean of e_g and -reach e_f.

    Their weights are in the ratio p_g alpha to p_f (1 - alpha) weight / (2 reach), so the prediction is never longer
    than the longer of the two. reach -> infinity is `obtuse_optimum`.

    Returns:
        A denoiser (B, *S) -> (B, *S).
    """

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        lean = (_odds(retain, forget, x, sigma) + (_loss_ratio(alpha, weight, x, sigma) / (2 * reach)).log()).sigmoid()
        e = (1 - expand_sigma(lean, x)) * eps(retain, x, sigma) - reach * expand_sigma(lean, x) * eps(forget, x, sigma)
        return x - expand_sigma(sigma, x) * e

    return denoise


def orthogonal_optimum(retain: Density, forget: Density, alpha: float, weight: Weight = ones) -> Denoiser:
    """The minimiser of eq. 11 with `losses.orthogonal`: [I + k M]^-1 e_g.

    Here k = weight (1 - alpha) / alpha p_f / p_g, and M = E[eps eps^T | x] under the forget data is positive definite.
    So the retained score is shrunk, most along the forget score, and never turned by a right angle. It takes a linear
    system for each sample and a backward pass for each coordinate, so it is for toys.

    Returns:
        A denoiser (B, *S) -> (B, *S).
    """

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        ratio = _odds(retain, forget, x, sigma).exp() * _loss_ratio(alpha, weight, x, sigma)
        moment = noise_moment(forget, x, sigma)  # (B, d, d)
        system = torch.eye(moment.shape[1], dtype=x.dtype, device=x.device) + ratio[:, None, None] * moment
        e = torch.linalg.solve(system, eps(retain, x, sigma).flatten(1)[..., None])[..., 0]
        return x - expand_sigma(sigma, x) * e.reshape(x.shape)

    return denoise


def noise_moment(denoiser: Denoiser, x: Tensor, sigma: float | Tensor) -> Tensor:
    """E[eps eps^T | x], the second moment of the noise in x, from any exact denoiser: dD/dx + eps_hat eps_hat^T.

    The covariance of x0 given x is sigma^2 dD/dx (Efron 2011, eq. 2.8), and x0 = x - sigma eps.

    Arguments:
        x: noised samples (B, *S) of d coordinates each.

    Returns:
        One matrix for each sample, (B, d, d).
    """
    with torch.enable_grad():
        leaf = x if x.requires_grad else x.detach().requires_grad_()
        mean = denoiser(leaf, torch.as_tensor(sigma, dtype=x.dtype, device=x.device)).flatten(1)
        columns = range(mean.shape[1])
        slopes = [
            torch.autograd.grad(mean[:, i].sum(), leaf, create_graph=x.requires_grad, retain_graph=True)[0]
            for i in columns
        ]
    jacobian = torch.stack(slopes, 1).flatten(2)  # (B, d, d)
    e = eps(denoiser, x, sigma).flatten(1)
    return jacobian + e[:, :, None] * e[:, None, :]


def _odds(retain: Density, forget: Density, x: Tensor, sigma: float | Tensor) -> Tensor:
    """log p_f / p_g of the noised densities at x, (B,)."""
    return forget.log_prob(x, sigma) - retain.log_prob(x, sigma)


def _loss_ratio(alpha: float, weight: Weight, x: Tensor, sigma: float | Tensor) -> Tensor:
    """weight(sigma) (1 - alpha) / alpha, (1,) or (B,)."""
    return (1 - alpha) / alpha * weight(torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1))
