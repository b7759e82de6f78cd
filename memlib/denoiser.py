"""The central object of this library, a denoiser D(x, sigma) = E[x0 | x0 + sigma n = x], and what follows from it.

A denoiser is any callable that maps a noisy sample x (B, *S) and its level sigma, () or (B,), to (B, *S): an analytic
mixture, a trained network, or somebody else's checkpoint in an adapter. Score and predicted noise are linear functions
of it, and guidance turns one denoiser into another. Bind a condition first: `functools.partial(net, y=y)`.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from memlib.noise import Noise, add_noise, as_level, expand_sigma
from memlib.shapes import Float, PerSample, Shaped

LogP = Callable[[Tensor, Tensor], Tensor]
"""log p(y | x, sigma) of a wanted label y: a function of x (B, *S) and sigma, () or (B,), that returns (B,)."""

Variance = Literal["small", "large"]
"""The variance of new noise in a step of DDPM: of the bridge, or of the forward process. Ho et al. 2020, sec. 3.2."""


@runtime_checkable
class Denoiser(Protocol):
    """Anything callable as D(x, sigma) -> E[x0 | x]: x (B, *S), sigma () or (B,), result (B, *S)."""

    def __call__(self, x: Tensor, sigma: Tensor, /) -> Tensor:
        """Posterior mean of x0 given x at level sigma; (B, *S) -> (B, *S)."""
        ...


def score(denoiser: Denoiser, x: Float[Tensor, " b *s"], sigma: PerSample) -> Float[Tensor, " b *s"]:
    """Score grad log p_sigma(x) = (D - x) / sigma^2, (B, *S). Tweedie's formula; Vincent 2011."""
    return (denoiser(x, as_level(sigma, x)) - x) / expand_sigma(sigma, x) ** 2


def eps(denoiser: Denoiser, x: Float[Tensor, " b *s"], sigma: PerSample) -> Float[Tensor, " b *s"]:
    """Predicted noise (x - D) / sigma, (B, *S): minus sigma times the score. Ho et al. 2020, eq. 11."""
    return (x - denoiser(x, as_level(sigma, x))) / expand_sigma(sigma, x)


def pair(
    denoiser: Denoiser, x0: Float[Tensor, " b *s"], sigma: PerSample, noise: Noise
) -> tuple[Float[Tensor, " b *s"], Float[Tensor, " b *s"]]:
    """Predicted and true noise (eps_hat, eps), each (B, *S), for x0 (B, *S) noised to sigma. Losses take this pair.

    In training `noise` is `noise_from(generator)`, so that a resumed run draws the same.
    """
    true = noise(x0)
    return eps(denoiser, add_noise(x0, sigma, lambda _: true), sigma), true


def guided(denoiser: Denoiser, log_p: LogP, weight: float | Shaped[Tensor, ""] | Shaped[Tensor, " b"]) -> Denoiser:
    """The denoiser whose score is score + weight * grad_x log p(y | x, sigma). SIDE eq. 10; Dhariwal & Nichol 2021.

    Arguments:
        denoiser: the unguided model.
        log_p: log_p(x, sigma) -> (B,), the log-probability of the wanted label for a noisy x (B, *S).
        weight: a float, or (B,) for one weight per sample, so that one batch holds a sweep over weights.

    Returns:
        A denoiser (B, *S) -> (B, *S), differentiable in x as the likelihood needs. Rows of weight 0 are those of the
        unguided model exactly. If all weights are 0, log_p is never called.
    """
    weight = torch.as_tensor(weight)
    if not weight.any():
        return denoiser

    def guided_denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        push = expand_sigma(weight, x) * expand_sigma(sigma, x) ** 2 * gradient(log_p, x, sigma)
        return denoiser(x, sigma) + torch.where(expand_sigma(weight, x) == 0, torch.zeros_like(push), push)

    return _around(guided_denoiser, denoiser)


def classifier_free(
    unconditional: Denoiser, conditional: Denoiser, weight: float | Shaped[Tensor, ""] | Shaped[Tensor, " b"]
) -> Denoiser:
    """unconditional + weight (conditional - unconditional): classifier-free guidance. Ho & Salimans 2022, eq. 6.

    `weight` is a float or (B,). 0 gives the unconditional model, 1 the conditional model, and more than 1 goes beyond
    the conditional model.
    """

    def between(x: Tensor, sigma: Tensor) -> Tensor:
        start = unconditional(x, sigma)
        return start + expand_sigma(weight, x) * (conditional(x, sigma) - start)

    return _around(between, unconditional)


def limited(denoiser: Denoiser, limit: Callable[[Tensor], Tensor]) -> Denoiser:
    """The denoiser whose estimates (B, *S) pass through `limit`, such as `lambda x0: x0.clamp(-1, 1)`.

    With `limit=D.limit` of an adapter this is the clipping of DDPMPipeline, and that of DDIM with
    `use_clipped_model_output=True`. DDIMPipeline's own default is another: the `limit` of `sample.ancestral`.
    """

    def limited_denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        return limit(denoiser(x, sigma))

    return _around(limited_denoiser, denoiser)


def variance_of(denoiser: Any) -> Variance:
    """The variance of new noise that a denoiser asks of DDPM, by its attribute `variance`; "small" if it has none.

    It is read through `functools.partial` and the wrappers of this module. Your own wrapper hides it: give
    `sample.ancestral` the variance then.
    """
    while isinstance(denoiser, partial):
        denoiser = denoiser.func
    return getattr(denoiser, "variance", "small")


def _around(outer: Any, inner: Denoiser) -> Denoiser:
    """`outer`, which says of the variance what the `inner` says that it wraps."""
    outer.variance = variance_of(inner)
    return outer


def gradient(log_p: LogP, x: Float[Tensor, " b *s"], sigma: PerSample) -> Float[Tensor, " b *s"]:
    """grad_x log p(y | x, sigma), (B, *S), which guidance of weight 1 adds to the score. SIDE eq. 8.

    `log_p(x, sigma)` returns (B,). The result can be differentiated again if x requires a gradient.
    """
    sigma = as_level(sigma, x)
    if x.requires_grad and torch.is_grad_enabled():
        return torch.autograd.grad(log_p(x, sigma).sum(), x, create_graph=True)[0]
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        return torch.autograd.grad(log_p(leaf, sigma).sum(), leaf)[0]


def evaluated(denoiser: Denoiser) -> Denoiser:
    """The same denoiser, (B, *S) -> (B, *S), whose networks are in evaluation mode during each call.

    Samplers, inpainting and likelihoods use it: in training mode, dropout and batch norm would change their results in
    silence.
    """
    net = getattr(denoiser, "__self__", denoiser)  # of `net.forward`, which no hook sees
    own: list[nn.Module] = []
    if isinstance(net, nn.Module) and next(net.parameters(), None) is not None:
        own = list(net.modules())

    def calm(x: Tensor, sigma: Tensor) -> Tensor:
        if own and not any(module.training for module in own):
            return denoiser(x, sigma)  # nothing to do: a hook would cost a small network a fifth of its time
        with evaluating(own):
            return denoiser(x, sigma)

    return calm


@contextmanager
def evaluating(modules: Iterable[nn.Module] = ()) -> Iterator[None]:
    """Inside, `modules` and every network that is called, however wrapped, are in evaluation mode; then as before."""
    switched: list[nn.Module] = []
    here = threading.get_ident()  # hooks see all threads, and another one may be training

    def switch(module: nn.Module, inputs: Any = None) -> None:
        if module.training and threading.get_ident() == here:
            for part in module.modules():  # all at once: a compiled network runs its parts without calling them
                if part.training:
                    part.training = False
                    switched.append(part)

    for module in modules:
        switch(module)
    hook = register_module_forward_pre_hook(switch)
    try:
        yield
    finally:
        hook.remove()
        for part in switched:
            part.training = True
