"""Every training and unlearning loss of the book, one line each on the pair (eps_hat, eps) of `denoiser.pair`.

A loss takes predicted and true noise, each (B, *S), and returns one value per sample, (B,). The matching losses are
statistics of the batch and return a scalar. Squared norms are sums over the sample's coordinates, as in the papers.
Song's `score * std` is -eps_hat in every parametrization, so nothing here knows VE, VP or DDPM; what differs between
them is the draw of sigma and `weight`.
"""

import torch
from torch import Tensor


def denoising(eps_hat: Tensor, eps: Tensor, weight: float | Tensor = 1.0) -> Tensor:
    """weight |eps_hat - eps|^2, (B,): denoising score matching with lambda = sigma^2. Ho et al. 2020, eq. 14.

    `weight` is a float or (B,); (sigma^2 + sigma_data^2) / sigma_data^2 is that of Karras et al. 2022, table 1.
    """
    return weight * _squared_norm(eps_hat - eps)


def matching(eps_hat: Tensor, eps: Tensor) -> Tensor:
    """|mean over the batch of (eps_hat - eps)|^2, a scalar: the distribution-matching term. Real-Fake eq. 21.

    On independent residuals it falls as 1/B: part of it is the noise of the mean itself. See `matching_unbiased`.
    """
    return (eps_hat - eps).flatten(1).mean(0).square().sum()


def matching_unbiased(eps_hat: Tensor, eps: Tensor) -> Tensor:
    """(|sum r|^2 - sum |r|^2) / (B (B - 1)) of residuals r = eps_hat - eps, a scalar: `matching` without its 1/B bias.

    Its expectation, |E r|^2, does not depend on B. Needs B >= 2; single batches can be negative.
    """
    residual = (eps_hat - eps).flatten(1)
    size = len(residual)
    return (residual.sum(0).square().sum() - residual.square().sum()) / (size * (size - 1))


def ascent(eps_hat: Tensor, eps: Tensor) -> Tensor:
    """-|eps_hat - eps|^2, (B,): gradient ascent on the forget batch, the plainest way to unlearn. Unbounded below."""
    return -denoising(eps_hat, eps)


def orthogonal(eps_hat: Tensor, eps: Tensor, weight: float | Tensor = 1.0) -> Tensor:
    """weight (eps_hat . eps)^2, (B,): 0 where the learned score is orthogonal to the forget score. SGU eq. 9 and 13.

    Both scores carry 1/sigma, so eq. 9 with lambda = sigma^2 is weight = 1/sigma^2. Eq. 13 carries the DDPM weight
    beta_t^2 / (2 sigma_t^2 alpha_t (1 - alpha_bar_t)), `ddpm_weight`; 1 where that is dropped, as in Ho et al. 2020,
    eq. 14. In d coordinates the square grows like d^2 where the two agree, against d for `denoising`: a weight of 1/d
    more keeps their balance the same in every dimension.
    """
    return weight * _inner(eps_hat, eps) ** 2


def orthogonal_elementwise(eps_hat: Tensor, eps: Tensor, weight: float | Tensor = 1.0) -> Tensor:
    """weight sum_i (eps_hat_i eps_i)^2, (B,): each coordinate by itself, which is not eq. 9 of SGU.

    The released code squares before it sums. The minimum is then 0 only for eps_hat = 0, not for a whole plane of
    orthogonal vectors, and d coordinates add up to d rather than to d^2.
    """
    return weight * (eps_hat * eps).square().flatten(1).sum(1)


def obtuse(eps_hat: Tensor, eps: Tensor) -> Tensor:
    """eps_hat . eps, (B,), signed: less than 0 where the learned score turns away from the forget score. SGU eq. 10.

    The two minus signs of score = -eps/sigma cancel, so minimising this widens the angle. Linear, hence unbounded below
    by itself: it needs the denoising term on the retained data beside it (eq. 11). In d coordinates both grow like d.
    """
    return _inner(eps_hat, eps)


def obtuse_bounded(eps_hat: Tensor, eps: Tensor, reach: float = 1.0) -> Tensor:
    """eps_hat . eps + |eps_hat|^2 / (2 reach), (B,): `obtuse` with the quadratic that bounds it, not in SGU.

    Equal to (|eps_hat + reach eps|^2 - reach^2 |eps|^2) / (2 reach): a regression onto the opposite of the noise,
    `reach` times as long. So its value never falls below -reach |eps|^2 / 2 and its minimiser is -reach E[eps | x];
    reach -> infinity is `obtuse`. Raises ValueError for a reach that is not positive.
    """
    if not reach > 0:
        raise ValueError(f"reach is the length of the opposite noise and must be positive, not {reach}")
    return _inner(eps_hat, eps) + _squared_norm(eps_hat) / (2 * reach)


def alignment(eps_hat: Tensor, eps: Tensor) -> Tensor:
    """-eps_hat . eps, (B,), to be minimised: the sign of SGU's released code, the opposite of its eq. 10.

    The code multiplies score * std = -eps_hat with the noise and forgets the second minus. It turns the learned score
    *towards* the forget data and, unbounded, makes it ever longer.
    """
    return -_inner(eps_hat, eps)


def erase(eps_hat: Tensor, target: Tensor) -> Tensor:
    """|eps_hat - target|^2, (B,), where `target` (B, *S) is noise drawn apart from that in x.

    The minimiser is the mean of `target`, whatever x: a model that no longer denoises there. Wu et al. 2024
    (EraseDiff).
    """
    return denoising(eps_hat, target)


def ddpm_weight(sigma: Tensor, grid: Tensor) -> Tensor:
    """beta_t^2 / (2 sigma_t^2 alpha_t (1 - alpha_bar_t)) with sigma_t^2 = beta_t, (B,). SGU eq. 12-14; Ho et al. 2020,
    eq. 12.

    sigma: (B,) levels of `grid` (T + 1,), a whole discrete grid (`noise.ddpm(1000)`), decreasing and ending in 0, from
    which the betas are read back: alpha_bar = 1 / (1 + sigma^2). A factor common to all terms of a loss, so divide by
    its mean where the scale of the loss matters. Raises ValueError for a level that is not on the grid.
    """
    levels = grid.double().flip(0).to(sigma.device)  # 0, then rising
    index = torch.searchsorted(levels, sigma.double() * (1 - 1e-6)).clamp(1, len(levels) - 1)
    here, before = levels[index] ** 2, levels[index - 1] ** 2
    if not torch.allclose(here.sqrt(), sigma.double(), rtol=1e-5, atol=0):
        raise ValueError("a level is not on the grid: draw it with noise.uniform_step from the same grid")
    alpha = (1 + before) / (1 + here)
    return ((1 - alpha) / (2 * alpha * here / (1 + here))).to(sigma)


def _squared_norm(r: Tensor) -> Tensor:
    return r.flatten(1).square().sum(1)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)
