"""Beyond the theorem's network: one change at a time, under its name. They decide no claim."""

import torch
from torch import Tensor

from memlib.papers.learning_rate.deeper import deep
from memlib.papers.learning_rate.descent import descend
from memlib.papers.learning_rate.fixed_level import excess_risk, minibatches, quadrature, zero_score_risk
from memlib.papers.learning_rate.shallow import two_layer
from memlib.papers.learning_rate.study.line import Network, at_level, members
from memlib.papers.learning_rate.study.results import Relaxation

_PLAIN = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
RATES = {
    "as stated": _PLAIN,
    "free first layer": _PLAIN,
    "two hidden layers": _PLAIN,
    "small initial weights": _PLAIN,
    "Adam": [1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0],  # Adam's steps do not shrink with the gradient: rates of its own
}
RUNS = 4
WIDTH, DEEP_WIDTH = 64, 32


def relaxed(
    kind: str, points: Tensor, keys: Tensor, level: Tensor, network: Network, steps: int, batch: int
) -> Relaxation:
    """Excess risk of the networks of one kind after `steps` at the rates of that kind.

    points: of each run, (R, n, 1). keys: the runs' names, (R,). level: sigma / mu, (1,).
    """
    rates = RATES[kind]
    e, r = members(len(rates), len(points))
    stack = at_level(points[r], level.expand(len(r)))
    scale = (1.0 if kind == "small initial weights" else network.start) / stack.sigma**2
    reach = points.shape[1] / 2 + 0.5
    if kind == "two hidden layers":
        net = deep(keys[r], DEEP_WIDTH, reach=reach, scale=scale)
    else:
        net = two_layer(keys[r], WIDTH, reach=reach, scale=scale, free=kind == "free first layer")
    net, eta = net.to(stack.points), torch.tensor(rates)[e].to(stack.sigma)
    batches = minibatches(stack, keys[r], batch, steps)
    limit, optimiser = network.bound / stack.sigma**2, "adam" if kind == "Adam" else "sgd"
    (end,) = descend(net, stack, eta, batches, bound=limit, optimiser=optimiser)
    excess = excess_risk(net, stack, quadrature(stack)) / zero_score_risk(stack)
    return Relaxation(rates, excess.view(len(rates), -1).cpu(), end.alive.view(len(rates), -1).cpu())
