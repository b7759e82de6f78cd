"""L3: gradient descent set down at a minimum that memorizes, and the sharpness of networks as they train."""

from itertools import repeat

import torch
from torch import Tensor

from memlib.papers.learning_rate.curvature import sharpness
from memlib.papers.learning_rate.descent import descend
from memlib.papers.learning_rate.fixed_level import Problem, excess_risk, minibatches, quadrature
from memlib.papers.learning_rate.shallow import TwoLayer, two_layer
from memlib.papers.learning_rate.study.line import Network, at_level, members
from memlib.papers.learning_rate.study.results import Leaving

RHO = [0.5, 0.8, 0.9, 1.1, 1.25, 2.0]  # learning rates in units of the edge
RATES = {"SGD": [0.03, 0.1, 0.2, 0.4], "Adam": [0.03, 0.1, 0.3, 1.0]}  # learning rates whose sharpness is followed
LINES = {"SGD": 2.0, "Adam": 38.0}  # the edge times eta; Adam's at beta_1 = 0.9
SETTLED = {"SGD": [0.1, 0.2], "Adam": [0.3, 1.0]}  # those whose sharpness grows to the edge and stays
WIDTH = 64
_LEVEL = 0.4  # sigma / mu at which sharpness is followed
PUSHED = 100  # steps at a multiple of the edge, ten looks
ONWARD = 1000  # steps after which descent is asked where it is
_ROUNDS = 5  # the step of the way to the minimum follows the edge, measured at the start of each


def leaving(points: Tensor, keys: Tensor, level: Tensor, network: Network, steps: int, batch: int) -> Leaving:
    """What becomes of minima that memorize at multiples of their edge, full batch and mini-batch.

    Points (R, n, 1) and keys (R,) name the runs; `steps` of full-batch descent lead to the minimum. In float64, as
    sharpness is.
    """
    runs = len(points)
    stack = at_level(points.double(), level.double().expand(runs))
    whole, reach = quadrature(stack), points.shape[1] / 2 + 0.5
    net = two_layer(keys, network.width, reach=reach, scale=network.start / stack.sigma**2).to(stack.points)
    at_start = _gradient(net, stack)
    for _ in range(_ROUNDS):
        eta = 1 / sharpness(net, whole, stack).clamp_min(1e-9)  # half the edge
        list(descend(net, stack, eta.clamp_max(1e-3), repeat(whole, steps // _ROUNDS)))
    edge = 2 / sharpness(net, whole, stack)
    r = torch.arange(runs).repeat(len(RHO))
    wide = Problem(*(tensor[r] for tensor in stack))
    eta = torch.tensor(RHO).to(edge).repeat_interleave(runs) * edge[r]
    before, many, rise, ends = excess_risk(net, stack, whole)[r], quadrature(wide), [], []
    for size in (0, batch):
        moved = net.members(r)
        looks = [*range(10, PUSHED + 1, 10), *([] if size else [ONWARD])]
        batches = minibatches(wide, keys[r], size, PUSHED) if size else repeat(many, looks[-1])
        for progress in descend(moved, wide, eta, batches, at=looks):
            value = excess_risk(moved, wide, many) / before
            (rise if progress.step <= PUSHED else ends).append(value)
        if not size:
            ends.append(sharpness(moved, many, wide) * eta / 2)
    shape = (len(RHO), runs)
    full, mini = torch.stack(rise).view(2, -1, *shape).amax(1).cpu()
    silent = excess_risk(torch.zeros_like, stack, whole)
    return Leaving(
        rho=RHO,
        rise={"full batch": full, "mini-batch": mini},
        gradient=(_gradient(net, stack) / at_start).cpu(),
        missing=(before[:runs] / silent).cpu(),
        ends=torch.stack(ends).view(2, *shape).cpu(),
    )


def sharpening(
    optimiser: str, points: Tensor, keys: Tensor, network: Network, batch: int, looks: list[int]
) -> tuple[Tensor, Tensor]:
    """The sharpness in units of the optimiser's edge at each look, without and with the kinks, (2, looks, RATES, R).

    Training starts from small output weights, where sharpness has room to grow. `batch` 0 is the full batch. The second
    result is the norm of the gradient at each look over that at the start, (looks, RATES, R).
    """
    rates = RATES[optimiser]
    e, r = members(len(rates), len(points))
    stack = at_level(points[r], torch.full((len(r),), _LEVEL))
    reach = points.shape[1] / 2 + 0.5
    net = two_layer(keys[r], network.width, reach=reach, scale=1 / stack.sigma).to(stack.points)
    whole, eta, seen = quadrature(stack), torch.tensor(rates)[e].to(stack.sigma), []
    start, slopes = _gradient(net, stack), []
    batches = minibatches(stack, keys[r], batch, looks[-1]) if batch else repeat(whole, looks[-1])
    bound = network.bound / stack.sigma**2
    for progress in descend(net, stack, eta, batches, bound=bound, optimiser=optimiser.lower(), at=looks):  # type: ignore
        parts = [sharpness(net, whole, kinks, iterations=16, scale=progress.scale) for kinks in (None, stack)]
        seen.append(torch.stack(parts) * eta / LINES[optimiser])
        slopes.append(_gradient(net, stack) / start)
    shape = (-1, len(rates), len(points))
    return torch.stack(seen, 1).view(2, *shape).cpu(), torch.stack(slopes).view(shape).cpu()


def _gradient(net: TwoLayer, stack: Problem) -> Tensor:
    """Norm of the gradient of the full risk, each part scaled as its update is, (M,)."""
    parts = zip(net.gradient(quadrature(stack)), net.lr_scale, strict=True)
    return sum((scale * grad.flatten(1).square().sum(1) for grad, scale in parts), torch.zeros(1).to(stack.mu)).sqrt()
