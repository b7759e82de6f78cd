"""L3: gradient descent set down at a minimum that memorizes, and the sharpness of networks as they train."""

from itertools import repeat

import torch
from torch import Tensor

from memlib.papers.learning_rate.curvature import sharpness
from memlib.papers.learning_rate.descent import descend
from memlib.papers.learning_rate.fixed_level import Problem, excess_risk, minibatches, quadrature
from memlib.papers.learning_rate.shallow import two_layer
from memlib.papers.learning_rate.study.line import Network, at_level, members

RHO = [0.25, 0.5, 0.8, 0.9, 1.1, 1.25, 2.0]  # learning rates in units of the edge
RATES = [0.01, 0.03, 0.1, 0.2, 0.4]  # learning rates whose sharpness is followed
WIDTH = 64
_LEVEL = 0.4  # sigma / mu at which sharpness is followed
_PUSHED = 100  # steps at a multiple of the edge


def leaving(points: Tensor, keys: Tensor, level: Tensor, network: Network, steps: int, batch: int) -> Tensor:
    """Excess risk at ten looks within a hundred steps at RHO times the edge, over the start's: (2, 10, RHO, R).

    The first is full batch, the second mini-batch. Points (R, n, 1) and keys (R,) name the runs; `steps` are those of
    full-batch descent at a tiny rate that lead to the minimum. In float64, as sharpness is.
    """
    runs = len(points)
    stack = at_level(points.double(), level.double().expand(runs))
    whole, reach = quadrature(stack), points.shape[1] / 2 + 0.5
    begin = two_layer(keys, network.width, reach=reach, scale=network.start / stack.sigma**2).to(stack.points)
    list(descend(begin, stack, 1e-5 * torch.ones_like(stack.mu), repeat(whole, steps)))
    edge = 2 / sharpness(begin, whole, stack)
    r = torch.arange(runs).repeat(len(RHO))
    wide = Problem(*(tensor[r] for tensor in stack))
    eta = torch.tensor(RHO).to(edge).repeat_interleave(runs) * edge[r]
    before, many, seen = excess_risk(begin, stack, whole)[r], quadrature(wide), []
    for size in (0, batch):
        net = begin.members(r)
        batches = minibatches(wide, keys[r], size, _PUSHED) if size else repeat(many, _PUSHED)
        for _ in descend(net, wide, eta, batches, at=range(10, _PUSHED + 1, 10)):
            seen.append(excess_risk(net, wide, many) / before)
    return torch.stack(seen).view(2, 10, len(RHO), runs).cpu()


def sharpening(points: Tensor, keys: Tensor, network: Network, batch: int, looks: list[int]) -> Tensor:
    """m lambda_max in units of 2 / eta at each look, without and with the kinks: (2, looks, RATES, R).

    Training starts from small output weights, where sharpness has room to grow. `batch` 0 is the full batch.
    """
    e, r = members(len(RATES), len(points))
    stack = at_level(points[r], torch.full((len(r),), _LEVEL))
    reach = points.shape[1] / 2 + 0.5
    net = two_layer(keys[r], network.width, reach=reach, scale=1 / stack.sigma).to(stack.points)
    whole, eta, seen = quadrature(stack), torch.tensor(RATES)[e].to(stack.sigma), []
    batches = minibatches(stack, keys[r], batch, looks[-1]) if batch else repeat(whole, looks[-1])
    for _ in descend(net, stack, eta, batches, bound=network.bound / stack.sigma**2, at=looks):
        sharp = [sharpness(net, whole, kinks, iterations=12) for kinks in (None, stack)]
        seen.append(torch.stack(sharp) * eta / 2)
    return torch.stack(seen, 1).view(2, -1, len(RATES), len(points)).cpu()
