"""RMIA: does the target favour this image more than it favours other images of the population?"""

import math

import torch
from torch import Tensor

from memlib.errors import Refused
from memlib.membership import _sides
from memlib.shapes import Float, Shaped

_NAMES = ("log-probabilities", "log-probabilities of the shadows")
_ROUNDING = 1e-9  # a probability that exceeds 1 by rounding


def rmia(
    log_p: Shaped[Tensor, "..."],
    shadows: Shaped[Tensor, "..."],
    inside: Shaped[Tensor, "..."] | None,
    population: Shaped[Tensor, "..."],
    population_shadows: Shaped[Tensor, "..."],
    *,
    offline_a: float | None = None,
    gamma: float | None = 2.0,
) -> Float[Tensor, " n"]:
    """The share of population images z that the image x dominates. Zarifzadeh, Liu and Shokri 2024, sec. 3.

    x dominates z if [p(x | target) / p(x)] / [p(z | target) / p(z)] >= gamma. We read p(x) as their algorithm does.
    Online, it is the mean of p over the shadows, those that saw x and those that did not weighing half each. Offline,
    only those that did not see x are known, and p(x) = ((1 + a) p_out + 1 - a) / 2. No model saw a population image:
    its p(z) is the plain mean over the shadows online, and interpolated like p(x) offline. (The paper has >=, the
    released code >.)

    The share has Z + 1 values, so many images tie, and if those that tie at 1 include more than the wanted fraction of
    non-members, no threshold resolves it. All images face one population, hence the share never decreases in the log
    ratio log p(x | target) - log p(x). `gamma=None` returns that ratio: the same order without the ties, for which the
    population does not matter.

    Arguments:
        log_p: (N,), log-probability of the right label under the target: `logsigmoid(margin)` for a classifier.
        shadows: (M, N), the same under the shadows.
        inside: (M, N) bools, whether the shadow saw the image; offline, None means that none did.
        population: (Z,), log-probabilities under the target of images that it did not see.
        population_shadows: (M, Z), the same under the shadows, which did not see them either.
        offline_a: None for online; offline, a in [0, 1] of p_in = a p_out + 1 - a: .3 for CIFAR-10 in the paper.
        gamma: the ratio from which x dominates, at least 1; None as above.

    Returns:
        (N,) in float64, shares in [0, 1], or log ratios; larger is more member-like.

    Raises:
        Refused: for an image without the shadows that it needs, online without `inside`, probabilities above 1, NaN, a
            or gamma out of range, and shapes that do not match.
    """
    if offline_a is not None and not 0 <= offline_a <= 1:
        raise Refused(f"offline_a is {offline_a}: give 0 to 1, or None for the online attack")
    if gamma is not None and not 1 <= gamma < math.inf:
        raise Refused(f"gamma is the ratio from which an image dominates: give 1 or more, not {gamma}")
    log_p, shadows = _sides.checked(log_p, shadows, inside, _NAMES)
    population, population_shadows = _sides.checked(population, population_shadows, None, _NAMES)
    if len(shadows) != len(population_shadows):
        raise Refused(f"{len(shadows)} shadows judge the images and {len(population_shadows)} the population: one set")
    for values in (log_p, shadows, population, population_shadows):
        if values.max() > _ROUNDING:
            raise Refused(f"a log-probability is {float(values.max()):g}: give log p <= 0, such as logsigmoid(margin)")
    if offline_a is None and inside is None:
        raise Refused("the online attack needs to know which shadows saw an image: give inside, or offline_a")
    out = torch.ones_like(shadows, dtype=torch.bool) if inside is None else ~inside
    _sides.require(out, 1, _sides.NOT)
    marginal, of_population = _log_mean(shadows, out), _log_mean(population_shadows)
    if offline_a is None:
        _sides.require(~out, 1, _sides.SAW)
        marginal = torch.logaddexp(marginal, _log_mean(shadows, ~out)) - math.log(2)
    else:
        marginal, of_population = (_interpolated(one, offline_a) for one in (marginal, of_population))
    ratio = log_p - marginal
    if gamma is None:
        return ratio
    dominated = (population - of_population).sort().values
    return torch.searchsorted(dominated, ratio - math.log(gamma), right=True).double() / len(dominated)


def _log_mean(log_p: Tensor, side: Tensor | None = None) -> Tensor:
    """Log of the mean of exp(log_p), (M, N) -> (N,), over the shadows of this side."""
    side = torch.ones_like(log_p, dtype=torch.bool) if side is None else side
    return log_p.masked_fill(~side, -math.inf).logsumexp(0) - side.sum(0).log()


def _interpolated(log_out: Tensor, a: float) -> Tensor:
    """log(((1 + a) p_out + 1 - a) / 2), (N,)."""
    rest = torch.full_like(log_out, math.log1p(-a) if a < 1 else -math.inf)
    return torch.logaddexp(log_out + math.log1p(a), rest) - math.log(2)
