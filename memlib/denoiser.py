"""The one object of this library: a denoiser D(x, sigma) = E[x0 | x0 + sigma n = x], and what is read off it.

A denoiser is any callable of a noisy sample x (B, *S) and its level sigma, () or (B,), that returns (B, *S): an
analytic mixture, a trained network, a foreign checkpoint behind an adapter. Score and predicted noise are two more
names for it, and guidance is a denoiser around a denoiser. A condition is bound beforehand
(`functools.partial(net, y=y)`).
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from memlib.noise import Noise, add_noise, expand_sigma


@runtime_checkable
class Denoiser(Protocol):
    """Anything callable as D(x, sigma) -> E[x0 | x]: x (B, *S), sigma () or (B,), result (B, *S)."""

    def __call__(self, x: Tensor, sigma: Tensor, /) -> Tensor:
        """Posterior mean of x0 given x at level sigma; (B, *S) -> (B, *S)."""


def score(denoiser: Denoiser, x: Tensor, sigma: float | Tensor) -> Tensor:
    """Score grad log p_sigma(x) = (D - x) / sigma^2, (B, *S). Tweedie's formula; Vincent 2011."""
    return (denoiser(x, _level(sigma, x)) - x) / expand_sigma(sigma, x) ** 2


def eps(denoiser: Denoiser, x: Tensor, sigma: float | Tensor) -> Tensor:
    """Predicted noise (x - D) / sigma, (B, *S): minus sigma times the score. Ho et al. 2020, eq. 11."""
    return (x - denoiser(x, _level(sigma, x))) / expand_sigma(sigma, x)


def pair(
    denoiser: Denoiser, x0: Tensor, sigma: float | Tensor, noise: Noise = torch.randn_like
) -> tuple[Tensor, Tensor]:
    """Predicted and true noise (eps_hat, eps), each (B, *S), of x0 (B, *S) noised to sigma: what losses are made of."""
    true = noise(x0)
    return eps(denoiser, add_noise(x0, sigma, lambda _: true), sigma), true


def guided(denoiser: Denoiser, log_p: Callable[[Tensor, Tensor], Tensor], weight: float | Tensor) -> Denoiser:
    """The denoiser whose score is score + weight * grad_x log p(y | x, sigma). SIDE eq. 10; Dhariwal & Nichol 2021.

    log_p(x, sigma) -> (B,) is the log-probability of the wanted label for a noisy x. `weight` is a float or (B,), one
    value per sample, so that a sweep over weights is one batch; rows of weight 0 are the unguided model exactly, and
    log_p is not called when all are. Differentiable in x, as the likelihood needs.
    """
    weight = torch.as_tensor(weight)
    if not weight.any():
        return denoiser

    def guided_denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        push = expand_sigma(weight, x) * expand_sigma(sigma, x) ** 2 * gradient(log_p, x, sigma)
        return denoiser(x, sigma) + torch.where(expand_sigma(weight, x) == 0, torch.zeros_like(push), push)

    return guided_denoiser


def classifier_free(unconditional: Denoiser, conditional: Denoiser, weight: float | Tensor) -> Denoiser:
    """unconditional + weight (conditional - unconditional): classifier-free guidance. Ho & Salimans 2022, eq. 6.

    `weight` is a float or (B,): 0 is the unconditional model, 1 the conditional one, more overshoots.
    """

    def between(x: Tensor, sigma: Tensor) -> Tensor:
        start = unconditional(x, sigma)
        return start + expand_sigma(weight, x) * (conditional(x, sigma) - start)

    return between


def gradient(log_p: Callable[[Tensor, Tensor], Tensor], x: Tensor, sigma: float | Tensor) -> Tensor:
    """grad_x log p(y | x, sigma), (B, *S): what guidance of weight 1 adds to the score. SIDE eq. 8.

    log_p(x, sigma) -> (B,), summed over the batch. Kept differentiable where the caller differentiates through x.
    """
    sigma = _level(sigma, x)
    if x.requires_grad and torch.is_grad_enabled():
        return torch.autograd.grad(log_p(x, sigma).sum(), x, create_graph=True)[0]
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        return torch.autograd.grad(log_p(leaf, sigma).sum(), leaf)[0]


def _level(sigma: float | Tensor, x: Tensor) -> Tensor:
    """The level as a denoiser takes it: () or (B,), in the dtype and on the device of x."""
    return torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
