"""The loss of SGU: it fits the score to retained data and turns it away from forget data, in one batch of both.

Training from scratch and fine-tuning minimise the same loss. They differ in the network that is handed to `train.fit`.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from memlib import losses
from memlib.denoiser import pair
from memlib.errors import Refused
from memlib.noise import as_level, noise_from
from memlib.random import choose

Draw = Callable[[int, torch.Generator], Tensor]
"""n draws from an explicit generator: noise levels (n,), or samples (n, *S)."""

ForgetLoss = Callable[[Tensor, Tensor], Tensor]
"""What is minimised on the forget batch: (eps_hat, eps), each (B, *S) -> (B,), one of `losses`."""

Weight = Callable[[Tensor], Tensor]
"""A factor for each level: sigma (B,) -> (B,)."""


def rows(points: Tensor) -> Draw:
    """Draws with replacement from points (N, *S), as batches (n, *S).

    Raises:
        Refused: where there are no points.
    """
    if not len(points):
        raise Refused("there is no image to draw from: check which labels are to be forgotten")
    return lambda n, generator: choose(points, n, generator)


def ones(sigma: Tensor) -> Tensor:
    """The weight 1 at every level, (B,) -> (B,): eq. 8 and 10 of SGU with lambda = sigma_t^2, on VE and VP alike."""
    return torch.ones_like(sigma)


def mix(retain_loss: Tensor, forget_loss: Tensor, alpha: float) -> Tensor:
    """alpha mean(retain_loss) + (1 - alpha) mean(forget_loss), a scalar, of losses (B,) and (F,). SGU eq. 11."""
    return alpha * retain_loss.mean() + (1 - alpha) * forget_loss.mean()


def objective(
    retain: Draw,
    forget: Draw | None,
    forget_loss: ForgetLoss | None,
    sample_sigma: Draw,
    *,
    alpha: float = 0.9,
    batch: int = 128,
    forget_fraction: float = 0.25,
    weight: Weight = ones,
    forget_weight: Weight = ones,
) -> Callable[[nn.Module, torch.Generator], Tensor]:
    """The loss for `train.fit`: denoising on retained data, `forget_loss` on forget data, mixed by alpha. SGU eq. 11.

    Every step passes `batch` images through the network once, so training costs the same with and without forget data.
    How the batch is split changes the noise of the gradient, not what is minimised.

    Arguments:
        retain: draws of retained data (n, *S).
        forget: draws of forget data (n, *S), or None for training as usual: on everything (the standard model), or
            without the forget data (retraining, or fine-tuning on the rest).
        forget_loss: the loss on the forget data; None if and only if `forget` is.
        sample_sigma: draws of noise levels (n,), which make the process: `noise.loguniform` for VE, `uniform_time` for
            VP, `uniform_step` for DDPM.
        alpha: weight of the retained data in the loss.
        batch: images a step.
        forget_fraction: fraction of the batch that is forget data, rounded to whole images.
        weight: factor of the denoising term at each level.
        forget_weight: factor of the forget term at each level. SGU's eq. 9 has 1 / sigma_t^2 for the squared inner
            product, where sigma_t is the noise in the process's own coordinates: sigma for VE and
            sigma / sqrt(1 + sigma^2) for VP.

    Returns:
        loss(net, generator) -> scalar.

    Raises:
        Refused: for alpha outside (0, 1], for a forget_fraction that leaves one of the two batches empty, and for only
            one of forget and forget_loss.
    """
    if (forget is None) != (forget_loss is None):
        raise Refused("unlearning needs both forget data and a loss on them: give both, or neither to train as usual")
    if not 0 < alpha <= 1:
        raise Refused(f"alpha is the weight of the retained data in the loss, above 0 and at most 1, not {alpha}")
    lost = 0 if forget is None else round(forget_fraction * batch)
    if not (0 < lost < batch or forget is None and batch > 0):
        raise Refused(
            f"forget_fraction={forget_fraction} of batch={batch} images leaves one of the two batches empty: give a "
            "larger batch"
        )

    def loss(net: nn.Module, generator: torch.Generator) -> Tensor:
        kept = batch - lost
        x0 = retain(kept, generator)
        if forget is not None:
            x0 = torch.cat([x0, forget(lost, generator)])
        level = as_level(sample_sigma(batch, generator), x0)
        eps_hat, true = pair(net, x0, level, noise_from(generator))  # both batches in one pass
        retain_loss = losses.denoising(eps_hat[:kept], true[:kept], weight(level[:kept]))
        if forget_loss is None:
            return retain_loss.mean()
        return mix(retain_loss, forget_weight(level[kept:]) * forget_loss(eps_hat[kept:], true[kept:]), alpha)

    return loss
