"""What is drawn at random before anything is measured, from one generator and in one fixed order.

The order is part of the record: another one would give other points for the same seed.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from memlib.analytic import GaussianMixture
from memlib.papers.gaussian.study.settings import Settings
from memlib.papers.gaussian.toys import mixture

NARROW = 0.01  # variance of the Gaussians at the training points where models are ranked (G1)
N_TARGETS = 200  # points of unequal weight (G4)


@dataclass(frozen=True)
class Draws:
    """The data of one seed."""

    points: Tensor  # (n_points, 2): the training points of the memorizer
    copies: Tensor  # (n_draws, 2): samples of a model that copies them with variance NARROW
    coin: Tensor  # (n_labelled,) bool: the random label
    targets: Tensor  # (N_TARGETS, 2): the points of unequal weight


def draws(settings: Settings, seed: int) -> Draws:
    """Draw the data of this seed."""
    generator = torch.Generator().manual_seed(seed)
    points, _ = mixture().sample(settings.n_points, generator)
    copies, _ = GaussianMixture(points, std=NARROW**0.5).sample(settings.n_draws, generator)
    coin = torch.rand(settings.n_labelled, generator=generator) < 0.5
    targets, _ = mixture().sample(N_TARGETS, generator)
    return Draws(points, copies, coin, targets)


def labelled(settings: Settings, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Points of the mixture (n, 2) and three labels, each the (n,) bool mask of its class.

    Two labels follow the modes, and one is a coin: all are informative by the definition of SIDE, since each cuts the
    data into a class and a rest.
    """
    points, mode = mixture().sample(settings.n_labelled, torch.Generator().manual_seed(seed + 1))
    return points, {"outer mode": mode == 0, "middle mode": mode == 1, "random half": draws(settings, seed).coin}


def concentric(settings: Settings, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Points of two Gaussians about one mean (n, 2), and the label of the wide one, the (n,) bool mask of its class.

    A class that is Gaussian, as theorem 1 assumes, and more spread than the whole, which no definition rules out.
    """
    both = GaussianMixture(torch.zeros(2, 2), torch.tensor([0.7, 0.3]), std=torch.tensor([1.0, 2.0]))
    points, which = both.sample(settings.n_labelled, torch.Generator().manual_seed(seed + 2))
    return points, {"wide Gaussian": which == 1}
