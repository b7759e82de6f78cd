"""Mean embeddings of Gaussians under a Gaussian kernel, in closed form: eq. 17 to 20 of Real-Fake without an estimate.

With k(x, y) = exp(-|x - y|^2 / 2 h^2), the embedding mu_P(z) = E_P k(z, x) of N(m, s^2 I) is a Gaussian bump. So the
squared distance |mu_P - mu_Q|^2, which is MMD^2, is a sum of three of them.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from memlib.shapes import Float


class Normal(NamedTuple):
    """N(mean, std^2 I) with mean (D,)."""

    mean: Float[Tensor, " d"]
    std: float

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "{n} d"]:
        """n points (n, D), float64."""
        drawn = torch.randn(n, len(self.mean), dtype=torch.float64, generator=generator)
        return self.mean + self.std * drawn


def embedding(law: Normal, z: Float[Tensor, "n d"], bandwidth: float) -> Float[Tensor, " n"]:
    """mu_P(z) = E_P k(z, x) at the points z (N, D), (N,)."""
    return _bump((z - law.mean).square().sum(1), z.shape[1], bandwidth**2, law.std**2)


def mmd2(p: Normal, q: Normal, bandwidth: float) -> float:
    """|mu_P - mu_Q|^2, which is MMD^2 under the Gaussian kernel of this bandwidth. Real-Fake eq. 20."""

    def mean_kernel(a: Normal, b: Normal) -> float:
        return float(_bump((a.mean - b.mean).square().sum(), len(a.mean), bandwidth**2, a.std**2 + b.std**2))

    return mean_kernel(p, p) + mean_kernel(q, q) - 2 * mean_kernel(p, q)


def witness(p: Normal, q: Normal, z: Float[Tensor, "n d"], bandwidth: float) -> Float[Tensor, " n"]:
    """(mu_P - mu_Q) / |mu_P - mu_Q| at z (N, D), (N,): the function of norm 1 that reaches the supremum of eq. 17."""
    apart = embedding(p, z, bandwidth) - embedding(q, z, bandwidth)
    return apart / math.sqrt(mmd2(p, q, bandwidth))


def gram(z: Float[Tensor, "n d"], bandwidth: float) -> Float[Tensor, "n n"]:
    """k(z_i, z_j) of points (N, D), (N, N)."""
    return torch.exp(-torch.cdist(z, z).square() / (2 * bandwidth**2))


def _bump(square: Tensor, size: int, kernel: float, variance: float) -> Tensor:
    """E k(z, x) for x ~ N(m, variance I) and |z - m|^2 = square."""
    total = kernel + variance
    return (kernel / total) ** (size / 2) * torch.exp(-square / (2 * total))
