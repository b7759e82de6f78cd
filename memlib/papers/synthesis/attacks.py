"""Who sees what of a pipeline, and the statistic that each takes from it; all (T, N), larger = more member-like.

A: the classifier's answers. B: the published images. C: what the generator answers when asked. D: its weights. The
paper attacks A alone, which says nothing of the others: what is published is a function of the members, and the
classifier sees them through it only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from scipy.stats import rankdata
from torch import Tensor
from torch.nn.functional import logsigmoid

from memlib import membership, nets, noise, sample
from memlib.denoiser import Denoiser
from memlib.noise import Noise
from memlib.papers.synthesis.classifiers import logits
from memlib.papers.synthesis.generators import conditioned
from memlib.papers.synthesis.pool import Pool
from memlib.papers.synthesis.synthetic import LOWEST, Published, level
from memlib.random import to_device
from memlib.shapes import Bool, Float, Shaped

THREATS = {
    "A": "the classifier's answers",
    "B": "the published images",
    "C": "the generator's answers",
    "D": "the generator's weights",
}

Score = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(values (N,), values of the shadows (M, N), which of them have the image (M, N)) -> (N,)."""


@dataclass(frozen=True)
class Statistic:
    """One statistic of every image under every pipeline, at one or more noise levels.

    Attributes:
        threat: "A" to "D".
        name: in words.
        values: (L, T, N); L = 1 where there is no level.
    """

    threat: str
    name: str
    values: Tensor


def calibrations(log_p: bool = False) -> dict[str, Score | None]:
    """The ways to use shadows, by name; None is the raw value. With `log_p` the statistic is a classifier's margin, and
    RMIA applies too."""
    ways: dict[str, Score | None] = {
        "raw": None,
        "calibrated": membership.calibrated,
        "LiRA": membership.lira,
        "LiRA, own deviation": partial(membership.lira, variance="example"),
        "LiRA offline": partial(membership.lira, offline=True),
    }
    return ways | ({"RMIA": _rmia} if log_p else {})


def judged(
    statistic: Shaped[Tensor, "l t n"], inside: Bool[Tensor, "t n"], way: Score | None, count: int | None = None
) -> Float[Tensor, "t n"]:
    """The score of every image for every target, (T, N), each with its own shadows and without its complement.

    Where the statistic (L, T, N) has several levels, each target gets the one at which its shadows, attacked in the
    same way, have the largest AUC.

    Arguments:
        statistic: (L, T, N).
        inside: (T, N).
        way: one of `calibrations`.
        count: shadows of each target, even; None is all of them.
    """
    levels, targets, _ = statistic.shape
    if way is None:
        areas = torch.stack([_auc(values, inside) for values in statistic])  # (L, T)
    found = []
    for target in range(targets):
        others = membership.shadows(target, targets, count)
        chosen = 0
        if levels > 1:
            mean = [
                (areas[k][others] if way is None else _auc_of_shadows(statistic[k], inside, others, way)).mean()
                for k in range(levels)
            ]
            chosen = int(torch.stack(mean).argmax())
        values = statistic[chosen]
        found.append(values[target] if way is None else way(values[target], values[others], inside[others]))
    return torch.stack(found).double()


def of_classifier(stack: nets.Stack, pool: Pool) -> Statistic:
    """A: the margin of the right label, which LiRA calls the confidence in logit scale. Carlini et al. 2022, eq. 5."""
    values = membership.margin(logits(stack, pool.images), pool.labels.expand(stack.count, -1))
    return Statistic("A", "margin", values[None])


def of_published(published: Published, pool: Pool, name: str = "nearest published image") -> Statistic:
    """B (or C): minus the distance to the nearest published image of the image's label."""
    parts = zip(published.images, published.labels, strict=True)
    values = [membership.nearest_distance(pool.images, images, pool.labels, labels) for images, labels in parts]
    return Statistic("B", name, torch.stack(values)[None])


@torch.no_grad()
def of_answers(
    stack: nets.Stack, pool: Pool, strengths: Sequence[float], guidance: float, draws: int = 3, steps: int = 10
) -> Statistic:
    """C: minus the distance between an image and what the generator makes of it from a noised copy.

    The image is sent as the start of image-to-image sampling with its label, `draws` times with the same noise for
    every pipeline. A model that knows the image gives it back.
    """
    found, spread = [], float(pool.images.std())
    y, count = pool.labels.repeat(stack.count), stack.count
    for strength in strengths:
        grid, apart = noise.karras(steps, LOWEST * spread, level(strength, spread)), 0.0
        for draw in range(draws):
            seeds = draw * 1_000_003 + torch.arange(len(pool.images))
            start = sample.start_from(pool.images, grid, seeds).repeat(count, *[1] * (pool.images.ndim - 1))
            made = sample.heun(conditioned(stack, y, guidance), start, grid).unflatten(0, (count, -1))
            apart = apart + (made - pool.images).flatten(2).norm(dim=2)
        found.append(-apart / draws)
    return Statistic("C", "distance of the image remade", torch.stack(found))


@torch.no_grad()
def of_weights(stack: nets.Stack, pool: Pool, levels: Sequence[float], draws: int = 4) -> list[Statistic]:
    """D: five statistics of the denoisers at `levels`, in units of the data's spread; noises are those of the image.

    Loss: Carlini et al. 2023. Loss without the label less that with it: Zhai et al. 2024. SecMI: Duan et al. 2023. PIA:
    Kong et al. 2024. Gradient norm: Pang et al. 2023.
    """
    spread, count = float(pool.images.std()), stack.count
    x0 = pool.images.repeat(count, *[1] * (pool.images.ndim - 1))
    told = conditioned(stack, pool.labels.repeat(count))
    lowest = LOWEST * spread

    def each(make: Callable[[float], Tensor]) -> Tensor:
        return torch.stack([make(spread * one).unflatten(0, (count, -1)) for one in levels])

    return [
        Statistic("D", "loss", each(lambda s: membership.loss_statistic(told, x0, s, _shared(count), draws))),
        Statistic("D", "loss less that without the label", each(lambda s: _discrepancy(stack, told, x0, s, draws))),
        Statistic("D", "SecMI", each(lambda s: membership.secmi(told, x0, s, lowest=lowest))),
        Statistic("D", "PIA", each(lambda s: membership.pia(told, x0, s, lowest))),
    ]


def of_gradients(stack: nets.Stack, pool: Pool, levels: Sequence[float]) -> Statistic:
    """D: minus the norm of the gradient of an image's loss over the weights, at `levels`; one noise an image."""
    spread, found = float(pool.images.std()), []
    y = {"y": pool.labels}
    for one in levels:
        each = [
            membership.gradient_norm(net.requires_grad_(), pool.images, spread * one, _shared(1), conditions=y)
            for net in stack.unstack()
        ]
        found.append(torch.stack(each))
    return Statistic("D", "gradient norm", torch.stack(found))


def _discrepancy(stack: nets.Stack, told: Denoiser, x0: Tensor, sigma: float, draws: int) -> Tensor:
    """The mean conditional discrepancy of a few draws, (T N,)."""
    shared = _shared(stack.count)
    each = [membership.conditional_discrepancy(stack, told, x0, sigma, shared) for _ in range(draws)]
    return torch.stack(each).mean(0)


def _shared(count: int) -> Noise:
    """Noise of rows (T N, *S) that is the same for all T models; a call is a new draw."""
    made: list[Noise] = []

    def draw(x: Tensor) -> Tensor:
        own = len(x) // count
        made[:] = made or [noise.seeded(range(own))]
        return to_device(made[0](x[:own]), x.device).repeat(count, *[1] * (x.ndim - 1))

    return draw


def _rmia(values: Tensor, shadows: Tensor, inside: Tensor) -> Tensor:
    """RMIA from margins, as the log ratio, which orders images as the share of dominated ones does: no population."""
    log_p, of_shadows = logsigmoid(values.double()), logsigmoid(shadows.double())
    return membership.rmia(log_p, of_shadows, inside, log_p[:1], of_shadows[:, :1], gamma=None)


def _auc(scores: Tensor, inside: Tensor) -> Tensor:
    """The area under the ROC curve of each row, (T, N) and (T, N) -> (T,): the rank sum of the members."""
    ranks = torch.from_numpy(rankdata(scores.cpu().numpy(), axis=1))
    seen = inside.cpu()
    members, others = seen.sum(1).double(), (~seen).sum(1).double()
    return ((ranks * seen).sum(1) - members * (members + 1) / 2) / (members * others)


def _auc_of_shadows(values: Tensor, inside: Tensor, others: Sequence[int], way: Score) -> Tensor:
    """The area of each shadow, attacked with the help of the other shadows, (M,): the target takes no part."""
    found = []
    for shadow in others:
        rest = [one for one in others if one // 2 != shadow // 2]
        found.append(way(values[shadow], values[rest], inside[rest]))
    return _auc(torch.stack(found), inside[list(others)])
