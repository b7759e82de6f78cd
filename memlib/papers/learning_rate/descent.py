"""Train a stack of networks at once, each member at its own learning rate. Members that diverge are set aside."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from memlib.errors import Refused
from memlib.papers.learning_rate.fixed_level import NoisyBatch, Problem, risk, zero_score_risk

_LOOK = 64  # steps between looks for members that diverged
_BLOWN = 1e12  # times the risk of the zero function, where a member counts as diverged: many overshoot and return
_BETAS, _TINY = (0.9, 0.999), 1e-8  # of Adam; Kingma & Ba 2015


class ScoreNetworks(Protocol):
    """M networks: parameters `trained`, each (M, ...), a factor on eta for each of them, and output weights `w2`."""

    trained: list[Tensor]
    lr_scale: list[float]
    w2: Tensor

    def __call__(self, y: Tensor, /) -> Tensor:
        """Scores at y, (M, B, d) -> (M, B, d)."""
        ...

    def members(self, index: Tensor, /) -> "ScoreNetworks":
        """A copy of some members, by index or mask (M,)."""
        ...

    def with_parameters(self, trained: list[Tensor], /) -> "ScoreNetworks":
        """The same networks with these tensors (M, ...) instead of `trained`."""
        ...

    def gradient(self, batch: NoisyBatch, /) -> list[Tensor]:
        """Gradients of the risk on a batch with y (M, B, d), in the order of `trained`."""
        ...


class Progress(NamedTuple):
    """After `step` updates: which members are alive, (M,), and where the others were found to have diverged, (M,).

    `scale` has one entry for each trained tensor: what multiplies eta times its gradient in an update, as a number for
    SGD. For Adam it is 1 / sqrt(second moment), (M, ...), whose first moment averages the gradients.
    """

    step: int
    alive: Tensor
    diverged_at: Tensor
    scale: list[float] | list[Tensor]


@torch.no_grad()
def descend(
    net: ScoreNetworks,
    problem: Problem,
    rate: Tensor,
    batches: Iterable[NoisyBatch],
    *,
    bound: float | Tensor = torch.inf,
    optimiser: Literal["sgd", "adam"] = "sgd",
    schedule: Callable[[int], Tensor] | None = None,
    at: Sequence[int] = (),
) -> Iterator[Progress]:
    """theta <- theta - m eta grad R, then w2 clipped to [-A, A], for all members at once. Wu et al. 2025, slide 9.

    A member has diverged if its risk on the current batch is not finite or exceeds 10^12 times that of s = 0. It is
    then set to zero and stays there. This is checked every 64 steps and at each `Progress`. Members do not affect one
    another.

    Arguments:
        net: trained in place, between one `Progress` and the next.
        rate: eta, (M,).
        batches: one for each step, such as `minibatches(...)`, or `repeat(quadrature(problem), steps)` for the full
            batch.
        bound: A, a number or (M,).
        optimiser: "adam" moves each parameter by eta times its normalised gradient, without the factor m.
        schedule: what multiplies eta in a step, counted from 1, (M,), such as `ramp`. None is 1 throughout.
        at: the steps after which a `Progress` is yielded; the end is always one.

    Raises:
        Refused: for another optimiser, and for rates that are not above 0 or not one for each member.
    """
    if optimiser not in ("sgd", "adam"):
        raise Refused(f"the optimiser is sgd or adam, not {optimiser!r}")
    if rate.shape != problem.sigma.shape or not (rate > 0).all():
        given = f"{tuple(rate.shape)} from {rate.min():.3g}"
        raise Refused(f"each of {len(problem.sigma)} members needs a rate above 0, not rates of shape {given}")
    alive, diverged_at = torch.ones_like(rate, dtype=torch.bool), torch.full_like(rate, -1, dtype=torch.long)
    bound = torch.as_tensor(bound).to(net.w2).reshape(-1, 1, 1)
    lr_scales = net.lr_scale if optimiser == "sgd" else [1.0] * len(net.lr_scale)
    rates = [_like(rate * lr_scale, p) for p, lr_scale in zip(net.trained, lr_scales, strict=True)]
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in net.trained] if optimiser == "adam" else []
    k, told, limit = 0, 0, _BLOWN * zero_score_risk(problem)
    for k, batch in enumerate(batches, 1):
        grads = net.gradient(batch)
        if moments:
            grads = [_adam(g, *both, k) for g, both in zip(grads, moments, strict=True)]
        now = rates if schedule is None else [step * _like(schedule(k), step) for step in rates]
        for parameter, step, grad in zip(net.trained, now, grads, strict=True):
            parameter.addcmul_(grad, step, value=-1)
        net.w2.clamp_(-bound, bound)
        if k % _LOOK == 0 or k in at:
            _set_aside(risk(net, batch), limit, k, alive, diverged_at, [*net.trained, *rates, *sum(moments, ())])
        if k in at:
            told = k
            yield Progress(k, alive.clone(), diverged_at.clone(), _scale(lr_scales, moments, k))
    if told < k:
        _set_aside(risk(net, batch), limit, k, alive, diverged_at, net.trained)
        yield Progress(k, alive, diverged_at, _scale(lr_scales, moments, k))


def ramp(rate: Tensor, start: float, end: float, up: int, hold: int, down: int) -> Callable[[int], Tensor]:
    """A `schedule` of `descend` for rates eta (M,): geometrically from `start` to eta, eta, geometrically to `end`.

    A network that is brought to a large rate this slowly stays near the edge of stability, where one that begins there
    is thrown far away by its first steps.

    Arguments:
        up, hold, down: steps of the three parts.
    """
    log_start, log_end = torch.log(start / rate), torch.log(end / rate)

    def factor(step: int) -> Tensor:
        if step <= up:
            return (log_start * (1 - step / up)).exp()
        return (log_end * (max(0, step - up - hold) / down)).exp()

    return factor


def _scale(lr_scales: list[float], moments: list[tuple[Tensor, Tensor]], k: int) -> list[float] | list[Tensor]:
    """`Progress.scale` after k steps."""
    if not moments:
        return lr_scales
    return [1 / ((square / (1 - _BETAS[1] ** k)).sqrt() + _TINY) for _, square in moments]


def _set_aside(
    value: Tensor, limit: Tensor, step: int, alive: Tensor, diverged_at: Tensor, tensors: Sequence[Tensor]
) -> None:
    """Mark the members whose risk (M,) exceeds its limit or is NaN, and set their parameters and rates to zero."""
    blown = alive & ~(value <= limit)
    if blown.any():
        alive &= ~blown
        diverged_at[blown] = step
        for tensor in tensors:
            tensor[blown] = 0


def _adam(grad: Tensor, mean: Tensor, square: Tensor, k: int) -> Tensor:
    """The normalised gradient of step k, counted from 1. Kingma & Ba 2015, algorithm 1."""
    mean.lerp_(grad, 1 - _BETAS[0])
    square.lerp_(grad.square(), 1 - _BETAS[1])
    return (mean / (1 - _BETAS[0] ** k)) / ((square / (1 - _BETAS[1] ** k)).sqrt() + _TINY)


def _like(values: Tensor, parameter: Tensor) -> Tensor:
    """(M,) as (M, 1, ..., 1), a tensor of its own."""
    return values.to(parameter).reshape(-1, *[1] * (parameter.dim() - 1)).clone()
