"""Every training and unlearning loss of the book, one line each on the pair (eps_hat, eps) of `denoiser.pair`.

A loss takes predicted and true noise, each (B, *S), and returns one value per sample, (B,). The matching losses are
statistics of the batch and return a scalar. Squared norms are sums over the coordinates of a sample, as in the papers.
The product `score * std` of Song et al. is -eps_hat for VE, VP and DDPM alike, so the losses need not distinguish them:
these diffusions differ in how sigma is sampled and in `weight` only.
"""

import torch
from torch import Tensor

from memlib.errors import Refused
from memlib.shapes import Float, PerSample


def denoising(
    eps_hat: Float[Tensor, " b *s"], eps: Float[Tensor, " b *s"], weight: PerSample = 1.0
) -> Float[Tensor, " b"]:
    """weight |eps_hat - eps|^2, (B,): denoising score matching with lambda = sigma^2. Ho et al. 2020, eq. 14.

    `weight` is a float or (B,). Karras et al. 2022, table 1, take (sigma^2 + sigma_data^2) / sigma_data^2.
    """
    return weight * _squared_norm(eps_hat - eps)


def matching(eps_hat: Float[Tensor, " b *s"], eps: Float[Tensor, " b *s"]) -> Float[Tensor, ""]:
    """|mean over the batch of (eps_hat - eps)|^2, a scalar: the distribution-matching term. Real-Fake eq. 21.

    For independent residuals it falls as 1/B, since the mean of B residuals is itself noisy: see `matching_unbiased`.
    """
    return (eps_hat - eps).flatten(1).mean(0).square().sum()


def matching_unbiased(eps_hat: Float[Tensor, " b *s"], eps: Float[Tensor, " b *s"]) -> Float[Tensor, ""]:
    """(|sum r|^2 - sum |r|^2) / (B (B - 1)) of residuals r = eps_hat - eps, a scalar: `matching` without its 1/B bias.

    Its expectation, |E r|^2, does not depend on B. It needs B >= 2, and it can be negative on a single batch.
    """
    residual = (eps_hat - eps).flatten(1)
    size = len(residual)
    return (residual.sum(0).square().sum() - residual.square().sum()) / (size * (size - 1))


def ascent(eps_hat: Float[Tensor, " b *s"], eps: Float[Tensor, " b *s"]) -> Float[Tensor, " b"]:
    """-|eps_hat - eps|^2, (B,): gradient ascent on the forget batch, the simplest unlearning loss. Unbounded below."""
    return -denoising(eps_hat, eps)


def orthogonal(
    eps_hat: Float[Tensor, " b *s"], eps: Float[Tensor, " b *s"], weight: PerSample = 1.0
) -> Float[Tensor, " b"]:
    """weight (eps_hat . eps)^2, (B,): 0 where the learned score is orthogonal to the forget score. SGU eq. 9 and 13.

    Arguments:
        eps_hat: predicted noise (B, *S).
        eps: true noise (B, *S).
        weight: a float or (B,). Both scores contain 1/sigma, so eq. 9 with lambda = sigma^2 is weight = 1/sigma^2.
            Eq. 13 has the DDPM weight, `ddpm_weight`, or 1 without it, as in Ho et al. 2020, eq. 14. In d coordinates
            the loss grows as d^2 where the two noises agree, and `denoising` grows as d. A further factor 1/d keeps
            the balance of the two the same in every dimension.
    """
    return weight * _inner(eps_hat, eps) ** 2


def orthogonal_elementwise(
    eps_hat: Float[Tensor, " b *s"], eps: Float[Tensor, " b *s"], weight: PerSample = 1.0
) -> Float[Tensor, " b"]:
    """weight sum_i (eps_hat_i eps_i)^2, (B,): the loss of SGU's released code, which differs from its eq. 9.

    The code squares before it sums. The loss is then 0 only for eps_hat = 0, and not for every vector orthogonal to
    eps; and in d coordinates it grows as d, not d^2. `weight` is a float or (B,).
    """
    return weight * (eps_hat * eps).square().flatten(1).sum(1)


def obtuse(eps_hat: Float[Tensor, " b *s"], eps: Float[Tensor, " b *s"]) -> Float[Tensor, " b"]:
    """eps_hat . eps, (B,), signed: negative where the learned score points away from the forget score. SGU eq. 10.

    The two minus signs of score = -eps/sigma cancel, so minimising the loss widens the angle. It is linear in eps_hat
    and so unbounded below: add the denoising loss on the retained data (eq. 11). In d coordinates both grow as d.
    """
    return _inner(eps_hat, eps)


def obtuse_bounded(
    eps_hat: Float[Tensor, " b *s"], eps: Float[Tensor, " b *s"], reach: float = 1.0
) -> Float[Tensor, " b"]:
    """eps_hat . eps + |eps_hat|^2 / (2 reach), (B,): `obtuse` plus a quadratic that bounds it. Not in SGU.

    It equals (|eps_hat + reach eps|^2 - reach^2 |eps|^2) / (2 reach), a regression onto -reach eps. It is therefore at
    least -reach |eps|^2 / 2, and -reach E[eps | x] minimises it. For reach -> infinity it becomes `obtuse`.

    Raises:
        Refused: if reach is not positive.
    """
    if not reach > 0:
        raise Refused(f"reach is the length of the opposite noise and must be positive, not {reach}")
    return _inner(eps_hat, eps) + _squared_norm(eps_hat) / (2 * reach)


def alignment(eps_hat: Float[Tensor, " b *s"], eps: Float[Tensor, " b *s"]) -> Float[Tensor, " b"]:
    """-eps_hat . eps, (B,), the loss of SGU's released code, whose sign is the opposite of its eq. 10.

    The code multiplies score * std = -eps_hat by the noise and omits the second minus. Minimising it turns the learned
    score *towards* the forget data, and lengthens it without bound.
    """
    return -_inner(eps_hat, eps)


def erase(eps_hat: Float[Tensor, " b *s"], target: Float[Tensor, " b *s"]) -> Float[Tensor, " b"]:
    """|eps_hat - target|^2, (B,), where `target` (B, *S) is noise independent of the noise in x.

    The minimiser is the mean of `target` for every x, so the model stops denoising there. Wu et al. 2024 (EraseDiff).
    """
    return denoising(eps_hat, target)


def ddpm_weight(sigma: Float[Tensor, " b"], grid: Float[Tensor, " t"]) -> Float[Tensor, " b"]:
    """The DDPM weight beta_t^2 / (2 sigma_t^2 alpha_t (1 - alpha_bar_t)) with sigma_t^2 = beta_t, (B,).

    SGU eq. 12-14; Ho et al. 2020, eq. 12. The weight multiplies all terms of a loss. Divide it by its mean if the scale
    of the loss matters.

    Arguments:
        sigma: (B,) levels of the grid.
        grid: (T + 1,) all levels of a discrete model, decreasing and ending in 0, such as `noise.ddpm(1000)`. The
            betas follow from alpha_bar = 1 / (1 + sigma^2).

    Raises:
        Refused: if a level is not on the grid.
    """
    levels = grid.double().flip(0).to(sigma.device)  # 0, then rising
    index = torch.searchsorted(levels, sigma.double() * (1 - 1e-6)).clamp(1, len(levels) - 1)
    here, before = levels[index] ** 2, levels[index - 1] ** 2
    if not torch.allclose(here.sqrt(), sigma.double(), rtol=1e-5, atol=0):
        raise Refused("a level is not on the grid: draw it with noise.uniform_step from the same grid")
    alpha = (1 + before) / (1 + here)
    return ((1 - alpha) / (2 * alpha * here / (1 + here))).to(sigma)


def _squared_norm(r: Tensor) -> Tensor:
    return r.flatten(1).square().sum(1)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)
