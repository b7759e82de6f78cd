"""The data of the chapter, two-dimensional mixtures, and the network that is trained on them.

Everything is made in torch's default dtype; the study runs in float64, which is cheap in two dimensions and lets the
numbers survive another processor.
"""

import torch
from torch import Tensor

from memlib.analytic import GaussianMixture
from memlib.nets import MLP, Preconditioned

MEANS = ((-2.0, -2.0), (0.0, 0.0), (2.0, 2.0))  # SGU sec. 4.1: three unit Gaussians on a diagonal
WEIGHTS = (0.4, 0.2, 0.4)  # 2/5, 1/5, 2/5
MIDDLE = 1  # the mode that is to be forgotten


def mixture(device: torch.device | str = "cpu") -> GaussianMixture:
    """The mixture of all three modes."""
    return GaussianMixture(means(device), torch.tensor(WEIGHTS, device=device), std=1.0)


def retain(device: torch.device | str = "cpu") -> GaussianMixture:
    """The two outer modes, which an unlearned model is to keep."""
    return GaussianMixture(means(device)[[0, 2]], std=1.0)


def forget(device: torch.device | str = "cpu") -> GaussianMixture:
    """The middle mode, which is to be forgotten."""
    return GaussianMixture(means(device)[[MIDDLE]], std=1.0)


def means(device: torch.device | str = "cpu") -> Tensor:
    """The means of the modes, (3, 2)."""
    return torch.tensor(MEANS, device=device)


def unlearning_weight(sigma: Tensor) -> Tensor:
    """w(sigma) = 1 / (0.1 + sigma^2), any shape: the weight of the unlearning term in this book.

    The paper's equations 8 to 10 share a lambda(t) that it does not state. With lambda = sigma^2, usual for VE,
    eq. 9 would carry 1 / sigma^2, which explodes near 0, and eq. 10 would carry 1.
    """
    return 1 / (0.1 + sigma**2)


def toy_network(width: int) -> Preconditioned:
    """An untrained denoiser of points (B, 2): three hidden layers of `width` units, EDM's preconditioning."""
    return Preconditioned(MLP(2, width=width, depth=3), sigma_data=2.0)
