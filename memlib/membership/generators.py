"""Statistics of a denoiser for given images, larger for members. None looks at other models: `calibrated` does.

Noise is an argument and must be the same for every model, so that shadows and target are compared on equal terms:
`seeded(seeds)` counts its calls, so make a new one from the same seeds for each model. The exact log-likelihood is one
more statistic, `likelihood.log_likelihood(...).value`.

Each takes a batch that the network evaluates at once. Of a larger set, in memory or on disk, give one batch after the
other, each with the noise of its own seeds: `images[rows]` for `rows` in `torch.arange(len(images)).split(50)`.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from memlib import losses
from memlib.denoiser import Denoiser, eps, evaluated, evaluating, pair
from memlib.errors import Refused
from memlib.noise import Noise, as_level, expand_sigma
from memlib.random import to_device
from memlib.shapes import Float, PerSample

Loss = Callable[[Tensor, Tensor], Tensor]
"""A loss of `memlib.losses`: a function of (eps_hat, eps), each (B, *S), that returns (B,)."""


@torch.no_grad()
def loss_statistic(
    denoiser: Denoiser, x0: Float[Tensor, " b *s"], sigma: PerSample, noise: Noise, draws: int = 1
) -> Float[Tensor, " b"]:
    """Minus the denoising loss |eps_hat - eps|^2 / d of x0 (B, *S) at one level, d coordinates, (B,).

    The basic attack on diffusion models; Carlini et al. 2023, sec. 5.2. The level matters most: at low noise every
    model succeeds, at high noise none does.

    Arguments:
        denoiser: D(x, sigma).
        x0: the images in question.
        sigma: the noise level, above 0.
        noise: the noise, one call a draw; the same for every model.
        draws: over how many noises the loss is averaged.

    Raises:
        Refused: for a level that is not positive and finite, and fewer than one draw.
    """
    _check(sigma, x0)
    if draws < 1:
        raise Refused(f"a loss is averaged over 1 draw of noise or more, not {draws}")
    calm = evaluated(denoiser)
    total = sum(losses.denoising(*pair(calm, x0, sigma, noise)) for _ in range(draws))
    return -torch.as_tensor(total) / (draws * x0[0].numel())


@torch.no_grad()
def conditional_discrepancy(
    unconditional: Denoiser, conditional: Denoiser, x0: Float[Tensor, " b *s"], sigma: PerSample, noise: Noise
) -> Float[Tensor, " b"]:
    """The loss without the condition minus the loss with it, per coordinate, (B,), for x0 (B, *S) at one level.

    The idea of CLiD, Zhai et al. 2024, with one level and one condition: a model fits the pair of image and condition
    more than the image alone. Both losses have the same noise; two evaluations.

    Arguments:
        unconditional: D(x, sigma).
        conditional: the same with the condition of each image bound, `partial(net, y=labels)`.
        x0: the images in question.
        sigma: the noise level, above 0.
        noise: the noise, called once; the same for every model.

    Raises:
        Refused: for a level that is not positive and finite.
    """
    fixed = noise(x0)
    without = loss_statistic(unconditional, x0, sigma, lambda _: fixed)
    return loss_statistic(conditional, x0, sigma, lambda _: fixed) - without


@torch.no_grad()
def secmi(
    denoiser: Denoiser, x0: Float[Tensor, " b *s"], sigma: float, step: float = 0.1, *, lowest: float = 0.01
) -> Float[Tensor, " b"]:
    """Minus the squared error of one DDIM step up from sigma and back, (B,): the t-error of SecMI. Duan et al. 2023.

    x0 (B, *S) is first encoded to sigma by Euler steps of the probability-flow ODE, which are DDIM's. No noise is
    drawn. Choose the level on shadows: of a perfect memorizer of normal points the AUC is 1 at sigma = .3 and below .5
    at sigma = 1.

    Arguments:
        denoiser: D(x, sigma).
        x0: the images in question.
        sigma: the level of the comparison. Theirs, timestep 100 of DDPM, is .34 times the deviation of the data.
        step: the length of a step in ln sigma, of the encoding and of the step up; at most 1. Theirs, 10 timesteps of
            DDPM, is about .1.
        lowest: the level at which x0 is taken for a sample: the lowest trained one, .01 for DDPM.

    Raises:
        Refused: unless 0 < lowest <= sigma and 0 < step <= 1.
    """
    if not 0 < lowest <= sigma < math.inf:
        raise Refused(f"SecMI encodes from {lowest} up to {sigma}: give 0 < lowest <= sigma")
    if not 0 < step <= 1:
        raise Refused(f"a step of SecMI is a length in ln sigma, above 0 and at most 1, not {step}")
    calm, distance = evaluated(denoiser), math.log(sigma / lowest)
    count = math.ceil(distance / step - 1e-9)
    levels = [lowest * math.exp(distance * i / count) for i in range(count)] + [sigma]
    x = x0
    for level, target in zip(levels, levels[1:], strict=False):
        x = _euler(calm, x, level, target)
    above = sigma * math.exp(step)
    back = _euler(calm, _euler(calm, x, sigma, above), above, sigma)
    return -(back - x).flatten(1).square().sum(1)


@torch.no_grad()
def pia(
    denoiser: Denoiser, x0: Float[Tensor, " b *s"], sigma: PerSample, lowest: float, *, norm: float = 4.0
) -> Float[Tensor, " b"]:
    """Minus |eps_hat(x0 + sigma e, sigma) - e|, with e = eps_hat(x0, lowest), (B,): PIA. Kong et al. 2024.

    The model's own noise for the clean image x0 (B, *S) takes the place of a random one. At sigma = 0 there is none:
    D(x) = x, and eps_hat is 0 / 0. It is therefore asked at the lowest level that the model was trained on.

    Arguments:
        denoiser: D(x, sigma).
        x0: the images in question.
        sigma: the level of the comparison.
        lowest: the lowest trained level; .01 for DDPM.
        norm: p of the p-norm, 4 in the paper.

    Raises:
        Refused: for levels that are not positive and finite, and a norm below 1.
    """
    _check(sigma, x0)
    if not 0 < lowest < math.inf:
        raise Refused(f"the lowest trained level is above 0, where eps_hat is defined, not {lowest}")
    if not norm >= 1:
        raise Refused(f"a p-norm has p >= 1, not {norm}")
    calm = evaluated(denoiser)
    own = eps(calm, x0, lowest)
    found = eps(calm, x0 + expand_sigma(sigma, x0) * own, sigma)
    return -(found - own).flatten(1).norm(norm, dim=1)


def gradient_norm(
    net: nn.Module,
    x0: Float[Tensor, " b *s"],
    sigma: PerSample,
    noise: Noise,
    *,
    loss: Loss = losses.denoising,
    conditions: Mapping[str, Tensor] | None = None,
    chunk: int = 64,
) -> Float[Tensor, " b"]:
    """Minus the norm of the gradient of each image's loss over the trainable weights, (B,), for x0 (B, *S).

    After Pang et al. 2023, who give gradients to a classifier; the norm is the simplest function of them, and needs no
    training.

    Arguments:
        net: a denoiser D(x, sigma) that is a module. The weights with requires_grad count.
        x0: the images in question.
        sigma: the noise level, above 0.
        noise: the noise, called once; the same for every model.
        loss: of one image as a batch of one, as those of `memlib.losses`.
        conditions: further arguments of the net by name, (B, ...) each, such as {"y": labels}.
        chunk: images whose gradients are held at once.

    Raises:
        Refused: for a level that is not positive and finite, and a net without trainable weights.
    """
    _check(sigma, x0)
    weights = {name: one.detach() for name, one in net.named_parameters() if one.requires_grad}
    if not weights:
        raise Refused("no weight of the network requires a gradient: call requires_grad_() on those that were trained")
    given, levels, conditions = noise(x0), as_level(sigma, x0).expand(len(x0)), dict(conditions or {})

    def alone(chosen: dict, image: Tensor, level: Tensor, added: Tensor, extra: dict) -> Tensor:
        extra = {name: value[None] for name, value in extra.items()}

        def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
            return torch.func.functional_call(net, chosen, (x, sigma), extra)

        return loss(*pair(denoiser, image[None], level[None], lambda _: added[None])).sum()

    def norm(*sample: Any) -> Tensor:
        gradients = torch.func.grad(alone)(weights, *sample)
        return torch.stack([one.square().sum() for one in gradients.values()]).sum().sqrt()

    with evaluating(net.modules()):
        return -torch.func.vmap(norm, chunk_size=chunk)(x0, levels, given, conditions).detach()


def _euler(denoiser: Denoiser, x: Tensor, sigma: float, target: float) -> Tensor:
    """x (B, *S) at level sigma, moved to level `target` by one step of the probability-flow ODE."""
    return x + (target - sigma) * eps(denoiser, x, sigma)


def _check(sigma: PerSample, x0: Tensor) -> None:
    """Refused unless the level is positive and finite."""
    level = to_device(as_level(sigma, x0), "cpu")
    if not ((level > 0) & (level < math.inf)).all():
        raise Refused(f"the noise level is {level.tolist()}: give one above 0, at which images can be told apart")
