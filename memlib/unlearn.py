"""Unlearning a score: retained data fitted, forget data turned away from, in one loss of two batches. SGU.

From scratch or by fine-tuning is the caller's choice of the network that is handed to `train.fit`; what is minimised is
the same. Beside it, what these losses lead to if a network could follow them exactly: for every noise level and every
point, with p_g and p_f the noised densities of retained and forget data and e_g, e_f the noise predicted under each,
the loss is a quadratic in eps_hat(x), and its minimiser can be written down.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from memlib import losses
from memlib.denoiser import Denoiser, eps, pair
from memlib.errors import Refused
from memlib.noise import drawn, like

Draw = Callable[[int, torch.Generator], Tensor]
"""n draws from an explicit generator: noise levels (n,), or samples (n, *S)."""

Lose = Callable[[Tensor, Tensor], Tensor]
"""What is minimised on the forget batch: (eps_hat, eps), each (B, *S) -> (B,), one of `losses`."""

Weight = Callable[[Tensor], Tensor]
"""A factor for each level: sigma (B,) -> (B,)."""


class Density(Protocol):
    """A denoiser with a density, such as `analytic.GaussianMixture`."""

    def __call__(self, x: Tensor, sigma: Tensor, /) -> Tensor:
        """Posterior mean of x0 given x (B, *S) at level sigma, (B, *S)."""

    def log_prob(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Log-density at level sigma of x (B, *S), (B,)."""


def rows(points: Tensor) -> Draw:
    """Draws with replacement from points (N, *S), as batches (n, *S). Raises Refused where there are none."""
    if not len(points):
        raise Refused("there is no image to draw from: check which labels are to be forgotten")
    return lambda n, generator: points[torch.randint(len(points), (n,), generator=generator).to(points.device)]


def ones(sigma: Tensor) -> Tensor:
    """The weight 1 at every level, (B,) -> (B,): eq. 8 and 10 of SGU with lambda = sigma_t^2, on VE and VP alike."""
    return torch.ones_like(sigma)


def mix(keep: Tensor, lose: Tensor, alpha: float) -> Tensor:
    """alpha mean(keep) + (1 - alpha) mean(lose) of per-sample losses (B,) and (F,), a scalar. SGU eq. 11."""
    return alpha * keep.mean() + (1 - alpha) * lose.mean()


def objective(
    retain: Draw,
    forget: Draw | None,
    lose: Lose | None,
    sigma: Draw,
    *,
    alpha: float = 0.9,
    batch: int = 128,
    share: float = 0.25,
    weight: Weight = ones,
    forget_weight: Weight = ones,
) -> Callable[[nn.Module, torch.Generator], Tensor]:
    """The loss of `train.fit`: denoising on the retained data, `lose` on the forget data, mixed by alpha. SGU eq. 11.

    Every step takes `batch` images through the network once, whatever the arm, so that arms cost the same: with
    forget and lose, round(share * batch) of them are forget data; with both None all are retained data, which is
    training as usual: on everything (the standard model), or without the forget data (retraining, or, from a trained
    model, fine-tuning on the rest). The split changes the noise of the gradient, not what is minimised.

    sigma: the process, by its draw of levels (n,): `noise.loguniform` for VE, `uniform_time` for VP, `uniform_step` for
        DDPM. weight, forget_weight: factors of the two terms at each level. SGU's eq. 9 is 1 / sigma_t^2 for the
        squared inner product, with sigma_t the noise in the process's own coordinates: sigma for VE and
        sigma / sqrt(1 + sigma^2) for VP.

    Returns loss(net, generator) -> scalar. Raises Refused for alpha outside (0, 1], for a share that leaves either
    batch empty, and for only one of forget and lose.
    """
    if (forget is None) != (lose is None):
        raise Refused("unlearning needs both forget data and a loss on them: give both, or neither to train as usual")
    if not 0 < alpha <= 1:
        raise Refused(f"alpha is the share of the retained data in the loss, above 0 and at most 1, not {alpha}")
    lost = 0 if forget is None else round(share * batch)
    if not (0 < lost < batch or forget is None and batch > 0):
        raise Refused(f"share={share} of batch={batch} images leaves one of the two batches empty: give a larger batch")

    def loss(net: nn.Module, generator: torch.Generator) -> Tensor:
        kept = batch - lost
        x0 = retain(kept, generator)
        if forget is not None:
            x0 = torch.cat([x0, forget(lost, generator)])
        level = sigma(batch, generator).to(x0)
        eps_hat, true = pair(net, x0, level, drawn(generator))    # both batches in one pass
        keep = losses.denoising(eps_hat[:kept], true[:kept], weight(level[:kept]))
        if lose is None:
            return keep.mean()
        return mix(keep, forget_weight(level[kept:]) * lose(eps_hat[kept:], true[kept:]), alpha)

    return loss


# What the losses lead to: the minimiser at each (x, sigma), a denoiser.


def obtuse_optimum(retain: Density, forget: Density, alpha: float, weight: Weight = ones) -> Denoiser:
    """The minimiser of eq. 11 with `losses.obtuse`: e_g - c p_f / p_g e_f, with c = weight (1 - alpha) / (2 alpha).

    In scores it is grad (p_g - c p_f) / p_g: uphill of the *difference* of the densities, out of wherever c p_f exceeds
    p_g, and 1 - c p_f / p_g times the difference's own score. The push grows where retained data are rare.
    (B, *S) -> (B, *S).
    """

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        push = _odds(retain, forget, x, sigma).exp() * (_share(alpha, weight, x, sigma) / 2)
        return x - like(sigma, x) * (eps(retain, x, sigma) - like(push, x) * eps(forget, x, sigma))

    return denoise


def bounded_optimum(
    retain: Density, forget: Density, alpha: float, reach: float = 1.0, weight: Weight = ones
) -> Denoiser:
    """The minimiser of eq. 11 with `losses.obtuse_bounded`: a mean of e_g and -reach e_f, (B, *S) -> (B, *S).

    The weight of -reach e_f is that of p_f (1 - alpha) weight / (2 reach) against p_g alpha, so nothing is longer than
    the longer of the two; reach -> infinity is `obtuse_optimum`.
    """

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        lean = (_odds(retain, forget, x, sigma) + (_share(alpha, weight, x, sigma) / (2 * reach)).log()).sigmoid()
        e = (1 - like(lean, x)) * eps(retain, x, sigma) - reach * like(lean, x) * eps(forget, x, sigma)
        return x - like(sigma, x) * e

    return denoise


def orthogonal_optimum(retain: Density, forget: Density, alpha: float, weight: Weight = ones) -> Denoiser:
    """The minimiser of eq. 11 with `losses.orthogonal`: [I + k M]^-1 e_g, (B, *S) -> (B, *S).

    k = weight (1 - alpha) / alpha p_f / p_g and M = E[eps eps^T | x] under the forget data, positive definite: the
    retained score is shrunk, most along the forget score, and never turned by a right angle. One small linear system
    for each sample, and one pass backwards for each coordinate: for toys.
    """

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        ratio = _odds(retain, forget, x, sigma).exp() * _share(alpha, weight, x, sigma)
        moment = noise_moment(forget, x, sigma)                                         # (B, d, d)
        system = torch.eye(moment.shape[1], dtype=x.dtype, device=x.device) + ratio[:, None, None] * moment
        e = torch.linalg.solve(system, eps(retain, x, sigma).flatten(1)[..., None])[..., 0]
        return x - like(sigma, x) * e.reshape(x.shape)

    return denoise


def noise_moment(denoiser: Denoiser, x: Tensor, sigma: float | Tensor) -> Tensor:
    """E[eps eps^T | x] of the noise in x (B, *S), (B, d, d): dD/dx + eps_hat eps_hat^T, for any exact denoiser.

    The covariance of x0 given x is sigma^2 dD/dx (Efron 2011, eq. 2.8), and x0 = x - sigma eps.
    """
    with torch.enable_grad():
        leaf = x if x.requires_grad else x.detach().requires_grad_()
        mean = denoiser(leaf, torch.as_tensor(sigma, dtype=x.dtype, device=x.device)).flatten(1)
        columns = range(mean.shape[1])
        slopes = [torch.autograd.grad(mean[:, i].sum(), leaf, create_graph=x.requires_grad, retain_graph=True)[0]
                  for i in columns]
    jacobian = torch.stack(slopes, 1).flatten(2)                                       # (B, d, d)
    e = eps(denoiser, x, sigma).flatten(1)
    return jacobian + e[:, :, None] * e[:, None, :]


def _odds(retain: Density, forget: Density, x: Tensor, sigma: float | Tensor) -> Tensor:
    """log p_f / p_g of the noised densities at x, (B,)."""
    return forget.log_prob(x, sigma) - retain.log_prob(x, sigma)


def _share(alpha: float, weight: Weight, x: Tensor, sigma: float | Tensor) -> Tensor:
    """weight(sigma) (1 - alpha) / alpha, (1,) or (B,)."""
    return (1 - alpha) / alpha * weight(torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1))
