"""Fine-tuning with the matching term of eq. 21, low-rank adapters, and how much of the residual the term can see.

With residuals r = eps_hat - eps, the printed term is |mean of r over a batch of B|^2. Its expectation is
(1/B) E|r|^2 + (1 - 1/B) |E r|^2: a part of the diffusion loss itself, and the squared mean residual. At the minimiser
of the diffusion loss E[r given x and sigma] = 0, so the second part acts only on a model that has not reached it.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from memlib import losses, nets, noise, train
from memlib.denoiser import pair
from memlib.papers.synthesis.generators import DROPPED, LEVELS, Training, rows_of
from memlib.papers.synthesis.pool import Pool
from memlib.random import keyed, noise_from
from memlib.shapes import Bool, Float, Int, Shaped

Form = Literal["printed", "unbiased", "released", "by class and level"]

_RELEASED_BATCH, _RELEASED_WEIGHT, _RELEASED_SNR = 8, 0.003, 5.0  # of the paper's public code


@dataclass(frozen=True)
class Term:
    """What is added to the diffusion loss: a form of the matching term, and its weight; 0 adds nothing."""

    form: Form
    gamma: float


RELEASED = Term("released", _RELEASED_WEIGHT)
"""The term of the public code: a weighted sum over a batch of 8, where the paper prints a mean with weight 0.05."""


def penalty(
    form: Form,
    eps_hat: Float[Tensor, " b *s"],
    eps: Float[Tensor, " b *s"],
    y: Int[Tensor, " b"],
    snr: Float[Tensor, " b"],
) -> Float[Tensor, ""]:
    """The matching term of one network's batch before its weight, a scalar.

    "printed" is eq. 21 and "unbiased" is the same without its 1/B part. "released" is |sum over 8 rows of w r|^2 with
    w = min(SNR, 5) / SNR (Hang et al. 2023), the mean over the groups of 8. "by class and level" is ours: the unbiased
    term within each class and half of the levels, weighted by the rows there.

    Arguments:
        form: which one.
        eps_hat, eps: (B, *S), as `denoiser.pair` returns them.
        y: labels (B,).
        snr: (B,), the squared ratio of the data's spread to sigma.
    """
    if form == "printed":
        return losses.matching(eps_hat, eps)
    if form == "unbiased":
        return losses.matching_unbiased(eps_hat, eps)
    residual = (eps_hat - eps).flatten(1)
    if form == "released":
        weighted = (snr.clamp_max(_RELEASED_SNR) / snr)[:, None] * residual
        return torch.stack([part.sum(0).square().sum() for part in weighted.split(_RELEASED_BATCH)]).mean()
    cell = 2 * y + (snr > snr.median())
    return _within(residual, cell)


def _within(residual: Float[Tensor, "b d"], cell: Int[Tensor, " b"]) -> Float[Tensor, ""]:
    """The unbiased squared mean residual of each cell (B,), weighted by its rows; cells of one row count as 0."""
    member = (cell[:, None] == cell.unique()).to(residual)  # (B, C)
    count = member.sum(0)
    squared = (member.T @ residual).square().sum(1) - member.T @ residual.square().sum(1)
    return (count * squared / (count * (count - 1)).clamp_min(1)).sum() / len(residual)


def fine_tune(
    stack: nets.Stack,
    pool: Pool,
    inside: Bool[Tensor, "e n"],
    how: Training,
    term: Term,
    seed: int,
    condition: Int[Tensor, " n"] | None = None,
    none: int | None = None,
) -> nets.Stack:
    """Train network e on the members of row e (E, N) with eq. 21, in place: |r|^2 plus gamma times the matching term.

    All terms see the same images, labels, levels and noise at a step. The loss is the sum over networks, and the term
    is that of each network's own batch.

    Arguments:
        stack: E networks; what requires a gradient is trained.
        pool: the images (N, *S).
        inside: (E, N).
        how: steps, batch and rate.
        term: see `Term`.
        seed: of the draws.
        condition: (N,), what each image is called; None is its label.
        none: the name that means none; None is the number of labels.
    """
    named = pool.labels if condition is None else condition
    nothing, count = pool.classes if none is None else none, stack.count
    spread, weights = float(pool.images.std()), inside * pool.copies

    def loss(stack: nn.Module, generator: torch.Generator) -> Tensor:
        rows = rows_of(weights, how.batch, generator).flatten()
        x0 = pool.images[rows]
        y = nets.dropped(named[rows], nothing, DROPPED, generator)
        sigma = noise.as_level(noise.lognormal(len(x0), *LEVELS, generator), x0)
        eps_hat, eps = pair(partial(stack, y=y), x0, sigma, noise_from(generator))
        plain = losses.denoising(eps_hat, eps).unflatten(0, (count, -1)).mean(1).sum()
        if not term.gamma:
            return plain
        parts = (one.unflatten(0, (count, -1)) for one in (eps_hat, eps, pool.labels[rows], (spread / sigma) ** 2))
        return plain + term.gamma * sum(penalty(term.form, *one) for one in zip(*parts, strict=True))

    train.train(stack, loss, how.steps, lr=how.lr, clip=None, seed=seed, title=f"{term.form} {term.gamma:g}")
    return stack.eval().requires_grad_(False)


@torch.no_grad()
def residual_energy(
    stack: nets.Stack, pool: Pool, inside: Bool[Tensor, "e n"], levels: tuple[float, ...], draws: int, seed: int
) -> Shaped[Tensor, "l e two"]:
    """E|r|^2 and |E r|^2 of every network's members, (L, E, 2), at `levels` in units of the data's spread.

    The second is the unbiased estimate over all members and `draws` noises of each, the same at every level. It may be
    below 0. Its ratio to the first is the share of the loss that the matching term can act on.

    Arguments:
        stack: E networks.
        pool: the images (N, *S).
        inside: (E, N), as many members in every row.
        levels: L.
        draws: noises of each member.
        seed: of the noise.
    """
    count, spread = len(inside), float(pool.images.std())
    rows = inside.nonzero()[:, 1].reshape(count, -1).repeat(1, draws).flatten()
    x0, y = pool.images[rows], pool.labels[rows]
    found = []
    for level in levels:
        eps_hat, eps = pair(partial(stack, y=y), x0, level * spread, noise_from(keyed(seed, 0)))
        parts = zip(*(one.unflatten(0, (count, -1)) for one in (eps_hat, eps)), strict=True)
        found.append([[losses.denoising(*one).mean(), losses.matching_unbiased(*one)] for one in parts])
    return torch.tensor(found, dtype=torch.float64)


class LowRank(nn.Module):
    """A frozen linear layer plus a trained product of rank `rank`, which is 0 at the start. Hu et al. 2021, eq. 3."""

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__()
        self.frozen = linear.requires_grad_(False)
        self.down = nn.Linear(linear.in_features, rank, bias=False).to(linear.weight)
        self.up = nn.Linear(rank, linear.out_features, bias=False).to(linear.weight)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        """(*B, in) -> (*B, out)."""
        return self.frozen(x) + self.up(self.down(x))


def with_adapters(stack: nets.Stack, rank: int, seed: int) -> nets.Stack:
    """A copy of a stack whose linear layers have adapters of this rank; nothing else is trained."""

    def adapt(module: nn.Module) -> None:
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, LowRank(child, rank))
            else:
                adapt(child)

    each = stack.unstack()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for net in each:
            adapt(net)
    return copied(nets.Stack(each))


def copied(stack: nets.Stack) -> nets.Stack:
    """A copy of a stack, of which everything is trained, or the adapters alone if it has some."""
    again = nets.Stack(stack.unstack())  # a stack makes parameters of frozen weights too: they are frozen here
    adapters = [".up." in name or ".down." in name for name in again.names]
    for weight, one in zip(again.weights, adapters, strict=True):
        weight.requires_grad_(one or not any(adapters))
    return again
